"""Exercises of lesson 01: weights, the causal map, its gradient, heads, and the cache."""

import math
from functools import partial

import torch
from einops import rearrange

from transnormer_edu.attention import softmax_attention, softmax_weights
from transnormer_edu.exercises.cases import in_all_shapes, in_words
from transnormer_edu.exercises.exercise import Case, Exercise, Question

# --- 1.1 ------------------------------------------------------------------------------------------


def one_query(draw):
    def make(draw, sizes):
        return {"q": draw.normal(sizes["d"]), "k": draw.normal(sizes["n"], sizes["d"])}

    yield from in_all_shapes(draw, make, "n", "d")
    large = {name: 30 * x for name, x in make(draw, {"n": 7, "d": 5}).items()}
    yield Case("With scores of a thousand and more (n=7, d=5)", large)
    low = {name: 30 * (1 + x.abs()) for name, x in make(draw, {"n": 7, "d": 5}).items()}
    yield Case("With scores of minus a thousand and less (n=7, d=5)", low | {"k": -low["k"]})


def one_hot_of_largest(q, k):
    score = k @ q
    return (score == score.max()).to(score.dtype)


def shares_of(weight):
    """Divides by the sum, whatever was put in."""
    return weight / weight.sum()


weights = Exercise(
    number="1.1", title="The weights of one query", level=1, worth=1, minutes=5,
    needs="lesson 01, section 1",
    function="weights_of_query",
    returns={"p": "token"},
    reference=lambda q, k: (k @ q).softmax(dim=0),
    cases=one_query,
    answers={
        "PyTorch's softmax": lambda q, k: torch.softmax((k * q).sum(-1), 0),
        "exponentials below 1": lambda q, k: shares_of(torch.exp(k @ q - (k @ q).max())),
        "the logarithm of the sum": lambda q, k: torch.exp(k @ q - torch.logsumexp(k @ q, 0)),
    },
    mistakes={
        "the exponential is missing": lambda q, k: shares_of(k @ q),
        "the weights are not divided by their sum": lambda q, k: torch.exp(k @ q),
        "the weights are divided by how many there are, not by their sum": lambda q, k: (
            torch.exp(k @ q) / len(k)
        ),
        "large scores overflow: subtract the largest one first": lambda q, k: shares_of(
            torch.exp(k @ q)
        ),
        "the largest size of a score was subtracted, not the largest score": lambda q, k: shares_of(
            torch.exp(k @ q - (k @ q).abs().max())
        ),
        "the best token gets everything": one_hot_of_largest,
        "the sign of the scores is turned round": lambda q, k: (-k @ q).softmax(0),
        "the logarithms of the weights came back": lambda q, k: (k @ q).log_softmax(0),
        "the scores are divided by √d, which is not asked for yet": lambda q, k: (
            (k @ q / math.sqrt(len(q))).softmax(0)
        ),
        "powers of 2 were taken, not of e": lambda q, k: (math.log(2) * k @ q).softmax(0),
    },
)  # fmt: skip

# --- 1.2 ------------------------------------------------------------------------------------------


def queries_and_keys(draw, sizes):
    b, h, n, dk = (sizes[name] for name in ("b", "h", "n", "dk"))
    return {"q": draw.normal(b, h, n, dk), "k": draw.normal(b, h, n, dk)}


def maps(draw):
    names = ("b", "h", "n", "dk")
    yield from in_all_shapes(draw, queries_and_keys, *names)
    sizes = draw.sizes(*names)
    large = {name: 60 * x for name, x in queries_and_keys(draw, sizes).items()}
    yield Case(in_words("scores of a thousand and more", sizes), large)
    low = queries_and_keys(draw, sizes)
    low = {"q": 1e6 * (1 + low["q"].abs()), "k": -1e6 * (1 + low["k"].abs())}
    yield Case(in_words("scores below -10¹¹", sizes), low)
    nothing = queries_and_keys(draw, sizes)
    nothing["k"][:, :, 1] = 0
    yield Case(in_words("a key of zeros, so that its scores are 0", sizes), nothing)


def scores(q, k, power=0.5):
    return q @ k.mT / q.shape[-1] ** power


def future(score):
    return torch.ones(score.shape[-2:], dtype=torch.bool).triu(1)


def look(q, k, *, power=0.5, hidden=future, fill=-math.inf, axis=-1):
    score = scores(q, k, power)
    return score.masked_fill(hidden(score), fill).softmax(dim=axis)


def row_by_row(q, k):
    result = torch.zeros(*q.shape[:3], q.shape[2], dtype=q.dtype)
    for t in range(q.shape[2]):
        score = torch.einsum("b h d, b h s d -> b h s", q[:, :, t], k[:, :, : t + 1])
        result[:, :, t, : t + 1] = (score / math.sqrt(q.shape[-1])).softmax(-1)
    return result


def masked_and_divided_again(q, k):
    late = scores(q, k).softmax(-1).tril()
    return late / late.sum(-1, keepdim=True)


attention_map = Exercise(
    number="1.2", title="The causal map", level=2, worth=2, minutes=10,
    needs="lesson 01, sections 2 and 3",
    function="causal_map",
    returns={"P": "text head reader read-token"},
    reference=softmax_weights,
    finished={"softmax_weights"},
    cases=maps,
    answers={"all at once": look, "row by row": row_by_row},
    mistakes={
        "the mask comes after the softmax": lambda q, k: scores(q, k).softmax(-1).tril(),
        "the mask comes after the softmax, where all that is left may be 0 / 0": (
            masked_and_divided_again
        ),
        "there is no mask": lambda q, k: scores(q, k).softmax(-1),
        "a token does not see itself": partial(
            look, hidden=lambda score: torch.ones(score.shape[-2:], dtype=torch.bool).triu(0)
        ),
        "the past is hidden, not the future": partial(look, hidden=lambda score: future(score).mT),
        "the scores of the future are set to 0, not to −∞": partial(look, fill=0.0),
        "the scores of the future are set to a number that is not small enough": partial(
            look, fill=-100.0
        ),
        "the scores of the future are set to −10⁹, and others may lie below": partial(
            look, fill=-1e9
        ),
        "a score of the past that happens to be 0 is hidden too": partial(
            look, hidden=lambda score: score.tril() == 0
        ),
        "1/√d is missing": partial(look, power=0),
        "the scores are divided by d, not by √d": partial(look, power=1),
        "the scores are multiplied by √d": partial(look, power=-0.5),
        "the softmax runs over the readers (rows), not over the tokens that are read": partial(
            look, axis=-2
        ),
        "q and k are swapped": lambda q, k: look(k, q),
    },
)  # fmt: skip

# --- 1.3 ------------------------------------------------------------------------------------------


def rows_of_weights(draw):
    def make(*shape, dtype=torch.float64):
        p = draw.normal(*shape).softmax(-1).to(dtype)
        return {"p": p, "dp": draw.normal(*shape, dtype=dtype)}

    yield Case("With 5 rows of 7 tokens", make(5, 7))
    yield Case("With other numbers", make(5, 7))
    yield Case("With texts and heads, (2, 3, 5, 4)", make(2, 3, 5, 4))
    yield Case("With a single row", make(6))
    yield Case("With a single token", make(4, 1))
    causal = make(5, 5)
    causal["p"] = draw.normal(5, 5).masked_fill(future(torch.ones(5, 5)), -math.inf).softmax(-1)
    yield Case("With a causal map, where the future has weight 0", causal)
    yield Case("In float32", make(3, 8, dtype=torch.float32))


def softmax_back(p, dp):
    return p * (dp - (p * dp).sum(-1, keepdim=True))


def by_jacobian(p, dp):
    jacobian = torch.diag_embed(p) - p[..., :, None] * p[..., None, :]
    return (jacobian @ dp[..., None]).squeeze(-1)


def by_autograd(p, dp):
    score = p.log().requires_grad_()
    return torch.autograd.grad(score.softmax(-1), score, dp)[0]


softmax_gradient = Exercise(
    number="1.3", title="The gradient of the softmax", level=2, worth=3, minutes=15,
    needs="lesson 01, section 3",
    function="softmax_backward",
    returns={"dz": ""},
    reference=softmax_back,
    cases=rows_of_weights,
    answers={"the matrix of all derivatives": by_jacobian, "PyTorch's autograd": by_autograd},
    mistakes={
        "the other tokens of the row are left out: their weights change too": lambda p, dp: (
            p * (1 - p) * dp
        ),
        "the sum over the row is left out": lambda p, dp: p * dp,
        "the factor p in front is missing": lambda p, dp: dp - (p * dp).sum(-1, keepdim=True),
        "the sum runs down the columns, not along a row": lambda p, dp: (
            p * (dp - (p * dp).sum(max(p.ndim - 2, 0) - p.ndim, keepdim=True))
        ),
        "one sum was taken over all rows": lambda p, dp: p * (dp - (p * dp).sum()),
        "dp was summed without its weights": lambda p, dp: p * (dp - dp.sum(-1, keepdim=True)),
        "dp was averaged without its weights": lambda p, dp: p * (dp - dp.mean(-1, keepdim=True)),
        "the sign is turned round": lambda p, dp: -softmax_back(p, dp),
        "the softmax was applied to what is already a weight": lambda p, dp: softmax_back(
            p.softmax(-1), dp
        ),
    },
    gradients=False,
)  # fmt: skip

# --- 1.4 ------------------------------------------------------------------------------------------


def layers(draw):
    def make(draw, sizes):
        b, h, n, dk, dv, d, e = (sizes[name] for name in ("b", "h", "n", "dk", "dv", "d", "e"))
        shapes = {"x": (b, n, d), "W_q": (d, h * dk), "W_k": (d, h * dk), "W_v": (d, h * dv)}
        tensors = {name: draw.normal(*shape) for name, shape in shapes.items()}
        return tensors | {"W_o": draw.normal(h * dv, e), "heads": h}

    names = ("b", "h", "n", "dk", "dv", "d", "e")
    yield from in_all_shapes(draw, make, *names)
    sizes = draw.sizes(*names)
    large = make(draw, sizes)
    large |= {name: 30 * large[name] for name in ("W_q", "W_k")}
    yield Case(in_words("scores of a thousand and more", sizes), large)


def many_heads(
    x, W_q, W_k, W_v, W_o, heads, *, cut="b n (h e) -> b h n e", join="b h n e -> b n (h e)",
    attend=softmax_attention,
):  # fmt: skip
    q, k, v = (rearrange(x @ W, cut, h=heads) for W in (W_q, W_k, W_v))
    return rearrange(attend(q, k, v), join) @ W_o


def head_by_head(x, W_q, W_k, W_v, W_o, heads):
    parts = zip(*(W.chunk(heads, 1) for W in (W_q, W_k, W_v)), W_o.chunk(heads, 0), strict=True)
    outputs = []
    for w_q, w_k, w_v, w_o in parts:
        q, k, v = ((x @ w)[:, None] for w in (w_q, w_k, w_v))
        outputs.append(softmax_attention(q, k, v)[:, 0] @ w_o)
    return sum(outputs)


def cut_without_moving(x, W_q, W_k, W_v, W_o, heads):
    b, n, _ = x.shape
    q, k, v = ((x @ W).reshape(b, heads, n, -1) for W in (W_q, W_k, W_v))
    return rearrange(softmax_attention(q, k, v), "b h n e -> b n (h e)") @ W_o


def join_without_moving(x, W_q, W_k, W_v, W_o, heads):
    q, k, v = (rearrange(x @ W, "b n (h e) -> b h n e", h=heads) for W in (W_q, W_k, W_v))
    o = softmax_attention(q, k, v)
    return o.reshape(len(x), x.shape[1], -1) @ W_o


def one_map_for_all(q, k, v):
    return softmax_weights(q, k)[:, :1] @ v


def scaled_by_whole_width(q, k, v):
    return softmax_attention(q / math.sqrt(q.shape[1]), k, v)


heads = Exercise(
    number="1.4", title="Many heads", level=2, worth=3, minutes=15,
    needs="lesson 01, section 4",
    function="many_heads",
    returns={"y": "text token feature"},
    reference=many_heads,
    cases=layers,
    answers={"head by head": head_by_head, "all heads at once": partial(many_heads)},
    mistakes={
        "the long axis is cut the wrong way round: a head is a block of neighbours": partial(
            many_heads, cut="b n (e h) -> b h n e"
        ),
        "the heads are joined the wrong way round": partial(
            many_heads, join="b h n e -> b n (e h)"
        ),
        "reshape mixed tokens and heads: cut first, then move the axis": cut_without_moving,
        "reshape mixed tokens and heads at the end: move the axis, then join": join_without_moving,
        "there is one head only": lambda *x: many_heads(*x[:5], 1),
        "the keys are made with the matrix of the queries": lambda x, W_q, W_k, *others: (
            many_heads(x, W_q, W_q, *others)
        ),
        "q and k are swapped": partial(
            many_heads, attend=lambda q, k, v: softmax_attention(k, q, v)
        ),
        "1/√d is missing": partial(
            many_heads, attend=lambda q, k, v: softmax_attention(q * math.sqrt(q.shape[-1]), k, v)
        ),
        "all heads use the map of the first": partial(many_heads, attend=one_map_for_all),
        "the scores are divided by the root of the whole width, not of a head's": partial(
            many_heads, attend=scaled_by_whole_width
        ),
        "the future is not hidden": partial(
            many_heads, attend=lambda q, k, v: scores(q, k).softmax(-1) @ v
        ),
    },
)  # fmt: skip

# --- 1.5 ------------------------------------------------------------------------------------------


def steps(draw):
    def make(draw, sizes):
        b, h, n, dk, dv = (sizes[name] for name in ("b", "h", "n", "dk", "dv"))
        new = {"q": draw.normal(b, h, dk), "k": draw.normal(b, h, dk), "v": draw.normal(b, h, dv)}
        return new | {"cache": (draw.normal(b, h, n, dk), draw.normal(b, h, n, dv))}

    names = ("b", "h", "n", "dk", "dv")
    yield from in_all_shapes(draw, make, *names)
    sizes = draw.sizes(*names)
    first = make(draw, sizes) | {"cache": None}
    yield Case(in_words("the first token, where there is no cache yet", sizes), first)
    large = make(draw, sizes)
    yield Case(in_words("scores of a thousand and more", sizes), large | {"q": 3000 * large["q"]})


def grown(k, v, cache):
    """The cache with the new token behind the others."""
    if cache is None:
        return k[:, :, None], v[:, :, None]
    return tuple(torch.cat([old, x[:, :, None]], 2) for old, x in zip(cache, (k, v), strict=True))


def answer_of(q, keys, values, *, power=0.5, axis=-1):
    score = torch.einsum("b h d, b h s d -> b h s", q, keys) / q.shape[-1] ** power
    return torch.einsum("b h s, b h s e -> b h e", score.softmax(axis), values)


def step(q, k, v, cache, **otherwise):
    keys, values = grown(k, v, cache)
    return answer_of(q, keys, values, **otherwise), keys, values


def step_by_whole_map(q, k, v, cache):
    """The last row of the whole map; the queries before do not matter."""
    keys, values = grown(k, v, cache)
    q = q[:, :, None].expand_as(keys)
    return softmax_attention(q, keys, values)[:, :, -1], keys, values


def detached_cache(q, k, v, cache):
    return step(q, k, v, cache and tuple(old.detach() for old in cache))


def newest_in_front(q, k, v, cache):
    o, keys, values = step(q, k, v, cache)
    return o, keys.roll(1, 2), values.roll(1, 2)


def read_before_written(q, k, v, cache):
    keys, values = grown(k, v, cache)
    return answer_of(q, *(cache or (keys, values))), keys, values


def not_kept(q, k, v, cache):
    o, keys, values = step(q, k, v, cache)
    return o, *(cache or (keys[:, :, :0], values[:, :, :0]))


def only_newest_kept(q, k, v, cache):
    return step(q, k, v, cache)[0], k[:, :, None], v[:, :, None]


def keys_twice(q, k, v, cache):
    if cache is None:
        return step(q, k, v, None)
    return step(q, cache[0][:, :, -1], v, cache)


cache_step = Exercise(
    number="1.5", title="One step with a cache", level=3, worth=4, minutes=20,
    needs="lesson 01, section 5",
    function="step_with_cache",
    returns={"o": "text head value", "keys": "text head token key",
             "values": "text head token value"},
    reference=step,
    cases=steps,
    answers={"one row": partial(step), "the last row of the whole map": step_by_whole_map},
    mistakes={
        "the newest token is not in the cache yet when it is read": read_before_written,
        "the newest token stands in front of the others in the cache": newest_in_front,
        "the cache came back without the newest token": not_kept,
        "the cache came back with the newest token alone": only_newest_kept,
        "no gradient reaches the cache that was given: it was detached": detached_cache,
        "the cache is not read: the answer is the newest value": lambda q, k, v, cache: (
            v, *grown(k, v, cache)
        ),
        "1/√d is missing": partial(step, power=0),
        "the softmax runs over the heads, not over the tokens": partial(step, axis=1),
        "the newest key is lost: the one before stands in its place": keys_twice,
        "every token counts the same": lambda q, k, v, cache: (
            grown(k, v, cache)[1].mean(2), *grown(k, v, cache)
        ),
    },
)  # fmt: skip

EXERCISES = [weights, attention_map, softmax_gradient, heads, cache_step]
QUESTIONS = [
    Question(
        number="1.6", title="A mask that comes late", level=2, worth=3, minutes=10,
        needs="lesson 01, section 2",
    ),
]  # fmt: skip
