"""Exercises of lesson 02: states, their cost, features with a sum, its gradient, and chunks."""

from functools import partial

import torch
from torch.nn.functional import elu

from transnormer_edu.activation import one_plus_elu
from transnormer_edu.attention import linear_attention
from transnormer_edu.exercises.borrowed import OPERATORS
from transnormer_edu.exercises.cases import LONG, in_all_shapes, in_words, operands, without_a_map
from transnormer_edu.exercises.exercise import Case, Exercise, Question

NAMES = ("b", "h", "n", "dk", "dv")


def total(x):
    return x.sum(-1, keepdim=True)


def operands_of(draw, sizes):
    return operands(draw, **sizes)


# --- 2.1 ------------------------------------------------------------------------------------------


def keys_and_values(draw, sizes):
    given = operands(draw, **sizes)
    return {"k": given["k"], "v": given["v"]}


def products(k, v):
    return k[..., :, None] * v[..., None, :]


def all_states(k, v):
    return products(k, v).cumsum(2)


def states_one_by_one(k, v):
    state, rows = 0, []
    for k_t, v_t in zip(k.unbind(2), v.unbind(2), strict=True):
        state = state + torch.einsum("b h i, b h j -> b h i j", k_t, v_t)
        rows.append(state)
    return torch.stack(rows, dim=2)


states = Exercise(
    number="2.1", title="The state after each token", level=1, worth=2, minutes=8,
    needs="lesson 02, sections 3 and 5",
    function="states_of",
    returns={"S": "text head token key value"},
    reference=all_states,
    cases=lambda draw: in_all_shapes(draw, keys_and_values, *NAMES),
    answers={
        "one by one": states_one_by_one,
        "a triangle of ones": lambda k, v: torch.einsum(
            "t s, b h s i, b h s j -> b h t i j",
            torch.ones(k.shape[2], k.shape[2], dtype=k.dtype).tril(), k, v,
        ),
    },
    mistakes={
        "the newest token is not in its own state": lambda k, v: all_states(k, v) - products(k, v),
        "nothing is added up: these are the single products": products,
        "every token got the last state, which knows the future": lambda k, v: (
            products(k, v).sum(2, keepdim=True).expand_as(products(k, v))
        ),
        "the sum runs backwards, from the last token": lambda k, v: (
            products(k, v).flip(2).cumsum(2).flip(2)
        ),
        "the axes of key and value are swapped": lambda k, v: all_states(v, k),
        "the state was divided by the number of tokens": lambda k, v: (
            all_states(k, v) / torch.arange(1, k.shape[2] + 1, dtype=k.dtype)[:, None, None]
        ),
        "the sum runs over the heads, not over the tokens": lambda k, v: products(k, v).cumsum(1),
        "sums were multiplied, not products summed": lambda k, v: (
            products(k.cumsum(2), v.cumsum(2))
        ),
    },
)  # fmt: skip

# --- 2.2 ------------------------------------------------------------------------------------------


def lengths_and_widths(draw):
    for _ in range(3):
        sizes = {"n": draw.random.randint(50, 900), **draw.sizes("dk", "dv", least=16)}
        yield Case(in_words("", sizes), sizes)
    yield Case("With the paper case n=3, dk=2, dv=1", {"n": 3, "dk": 2, "dv": 1})
    yield Case("With n=1, dk=5, dv=7", {"n": 1, "dk": 5, "dv": 7})


cost = Exercise(
    number="2.2", title="What each order costs", level=1, worth=1, minutes=6,
    needs="lesson 02, section 3",
    function="multiplications_of",
    returns={"left": "", "right": ""},
    reference=lambda n, dk, dv: (n * n * (dk + dv), 2 * n * dk * dv),
    cases=lengths_and_widths,
    answers={
        "product by product": lambda n, dk, dv: (n * dk * n + n * n * dv, (dk * n + n * dk) * dv),
        "counted cell by cell": lambda n, dk, dv: (
            sum(dk + dv for _ in range(n)) * n, sum(2 * dk * dv for _ in range(n))
        ),
    },
    mistakes={
        "left and right are swapped": lambda n, dk, dv: (2 * n * dk * dv, n * n * (dk + dv)),
        "on the left, the product with V was left out": lambda n, dk, dv: (
            n * n * dk, 2 * n * dk * dv
        ),
        "on the right, the product with Q was left out": lambda n, dk, dv: (
            n * n * (dk + dv), n * dk * dv
        ),
        "additions were counted too": lambda n, dk, dv: (
            2 * n * n * (dk + dv), 4 * n * dk * dv
        ),
        "only the causal half of the map was counted": lambda n, dk, dv: (
            n * (n + 1) // 2 * (dk + dv), 2 * n * dk * dv
        ),
        "dk and dv were multiplied on the left, where they belong to different products": (
            lambda n, dk, dv: (n * n * dk * dv, 2 * n * dk * dv)
        ),
        "on the right, dk and dv were added": lambda n, dk, dv: (
            n * n * (dk + dv), 2 * n * (dk + dv)
        ),
    },
    gradients=False,
)  # fmt: skip

# --- 2.3 ------------------------------------------------------------------------------------------


def scores_of_every_size(draw):
    yield from in_all_shapes(draw, operands_of, *NAMES)
    sizes = draw.sizes(*NAMES)
    x = operands_of(draw, sizes)
    small = x | {"q": x["q"] - 8, "k": x["k"] - 8}
    yield Case(in_words("features near 0, from numbers around -8", sizes), small)
    large = x | {"q": torch.cat([x["q"][..., :1] + 1000, x["q"][..., 1:]], dim=-1)}
    yield Case(in_words("a number around 1000 in each query", sizes), large)


def positive_attention(q, k, v, *, phi=one_plus_elu, phi_of_k=None, causal_sum=True, causal=True):
    score = phi(q) @ (phi_of_k or phi)(k).mT
    seen = score.tril() if causal else score
    return seen @ v / total(seen if causal_sum else score)


def positive_attention_by_states(q, k, v):
    q, k = elu(q) + 1, elu(k) + 1
    state, weight, rows = 0, 0, []
    for t in range(q.shape[2]):
        state = state + k[:, :, t, :, None] * v[:, :, t, None, :]
        weight = weight + k[:, :, t]
        above = (q[:, :, t, None] @ state)[:, :, 0]
        rows.append(above / (q[:, :, t] * weight).sum(-1, keepdim=True))
    return torch.stack(rows, dim=2)


def ones_as_one_more_value(q, k, v):
    more = torch.cat([v, torch.ones_like(v[..., :1])], dim=-1)
    rate = torch.zeros(q.shape[1], dtype=q.dtype)
    o = linear_attention(one_plus_elu(q), one_plus_elu(k), more, rate)
    return o[..., :-1] / o[..., -1:]


with_sum = Exercise(
    number="2.3", title="Positive features and their sum", level=2, worth=3, minutes=15,
    needs="lesson 02, sections 2 and 3",
    function="attention_with_sum",
    returns={"o": "text head token value"},
    reference=positive_attention,
    cases=scores_of_every_size,
    answers={
        "token by token": positive_attention_by_states,
        "the sum as one more value": ones_as_one_more_value,
    },
    mistakes={
        "the denominator is missing": lambda q, k, v: (
            (one_plus_elu(q) @ one_plus_elu(k).mT).tril() @ v
        ),
        "the denominator sums over the future too": partial(positive_attention, causal_sum=False),
        "the future is not hidden": partial(positive_attention, causal=False),
        "the 1 is missing: φ is 1 + elu, which is never negative": partial(
            positive_attention, phi=elu
        ),
        "φ was applied to the scores, not to queries and keys": lambda q, k, v: (
            one_plus_elu(q @ k.mT).tril() @ v / total(one_plus_elu(q @ k.mT).tril())
        ),
        "φ was applied to the queries only": partial(
            positive_attention, phi_of_k=lambda k: k
        ),
        "φ was applied twice": partial(
            positive_attention, phi=lambda x: one_plus_elu(one_plus_elu(x))
        ),
        "φ is relu here, not 1 + elu": partial(positive_attention, phi=torch.relu),
        "the sum of the keys was not multiplied with the query": lambda q, k, v: (
            (one_plus_elu(q) @ one_plus_elu(k).mT).tril() @ v
            / total(one_plus_elu(k).cumsum(2))
        ),
        "it was divided by the number of tokens, not by the sum of the weights": lambda q, k, v: (
            (one_plus_elu(q) @ one_plus_elu(k).mT).tril() @ v
            / torch.arange(1, q.shape[2] + 1, dtype=q.dtype)[:, None]
        ),
        "q and k are swapped": lambda q, k, v: positive_attention(k, q, v),
    },
)  # fmt: skip


# --- 2.4 ------------------------------------------------------------------------------------------


def rows_of_scores(draw):
    def make(*shape, dtype=torch.float64):
        z = draw.uniform(*shape, low=0.1, high=3, dtype=dtype)
        return {"z": z, "dp": draw.normal(*shape, dtype=dtype)}

    yield Case("With 5 rows of 7 scores", make(5, 7))
    yield Case("With other numbers", make(5, 7))
    yield Case("With texts and heads, (2, 3, 5, 4)", make(2, 3, 5, 4))
    yield Case("With a single row", make(6))
    yield Case("With a single token", make(4, 1))
    tiny = make(3, 5)
    yield Case("With scores of a millionth", tiny | {"z": 1e-6 * tiny["z"]})
    yield Case("In float32", make(3, 8, dtype=torch.float32))


def share_back(z, dp):
    return (dp - total(z * dp) / total(z)) / total(z)


def share_by_jacobian(z, dp):
    n, s = z.shape[-1], total(z)[..., None]
    jacobian = torch.eye(n, dtype=z.dtype) / s - z[..., :, None] / s**2
    return (dp[..., None, :] @ jacobian).squeeze(-2)


def share_by_autograd(z, dp):
    z = z.clone().requires_grad_()
    return torch.autograd.grad(z / total(z), z, dp)[0]


sum_gradient = Exercise(
    number="2.4", title="The gradient of a share", level=2, worth=3, minutes=15,
    needs="lesson 02, section 7, and 1.3",
    function="share_backward",
    returns={"dz": ""},
    reference=share_back,
    cases=rows_of_scores,
    answers={"the matrix of all derivatives": share_by_jacobian, "autograd": share_by_autograd},
    mistakes={
        "this is the gradient of the softmax: it has a p in front": lambda z, dp: (
            z / total(z) * (dp - total(z / total(z) * dp))
        ),
        "the sum below the fraction bar is left out, as if it did not move": lambda z, dp: (
            dp / total(z)
        ),
        "the whole is not divided by the sum of the scores": lambda z, dp: (
            dp - total(z * dp) / total(z)
        ),
        "it was divided by the own score, not by the sum": lambda z, dp: (
            (dp - total(z * dp) / total(z)) / z
        ),
        "the scores stand where the shares belong": lambda z, dp: (
            (dp - total(z * dp)) / total(z)
        ),
        "dp was averaged without its weights": lambda z, dp: (
            (dp - dp.mean(-1, keepdim=True)) / total(z)
        ),
        "dp was summed, not averaged with the shares as weights": lambda z, dp: (
            (dp - total(dp)) / total(z)
        ),
        "the mean was added, not taken away": lambda z, dp: (
            (dp + total(z * dp) / total(z)) / total(z)
        ),
        "the sign is turned round": lambda z, dp: -share_back(z, dp),
        "one sum was taken over all rows": lambda z, dp: (
            (dp - (z * dp).sum() / z.sum()) / z.sum()
        ),
        "only a token's own score was moved": lambda z, dp: (
            dp * (1 - z / total(z)) / total(z)
        ),
    },
    gradients=False,
)  # fmt: skip

# --- 2.5 ------------------------------------------------------------------------------------------


def chunk_cases(draw):
    def make(draw, sizes, size=4):
        return operands(draw, **sizes) | {"size": size}

    yield from in_all_shapes(draw, make, *NAMES)
    sizes = draw.sizes(*NAMES)
    for what, size in (("chunks of 1", 1), ("chunks of 5", 5), ("a chunk longer than n", 40)):
        yield Case(in_words(what, sizes), make(draw, sizes, size))
    even = sizes | {"n": 12}
    yield Case(in_words("chunks that fit exactly, of 4", even), make(draw, even))
    yield Case(in_words("two chunks, of 6", even), make(draw, even, 6))
    yield without_a_map(make(draw, LONG))


def by_chunks(
    q, k, v, size, *, near=True, mask=True, far=True, update_first=False, add=True, drop=False
):
    """The chunked form; each option is one thing that can be got wrong."""
    state, rows = 0, []
    for q_c, k_c, v_c in zip(q.split(size, 2), k.split(size, 2), v.split(size, 2), strict=True):
        new = k_c.mT @ v_c
        before = state
        state = state + new if add else new
        score = q_c @ k_c.mT
        o = ((score.tril() if mask else score) @ v_c) if near else 0 * v_c
        o = o + q_c @ (state if update_first else before + 0 * new) if far else o
        rows.append(0 * o if drop and q_c.shape[2] < size else o)
    return torch.cat(rows, dim=2)


def whole_map(q, k, v, size):
    return (q @ k.mT).tril() @ v


def through_all_states(q, k, v, size):
    return torch.einsum("b h t i, b h t i j -> b h t j", q, all_states(k, v))


in_chunks = Exercise(
    number="2.5", title="In chunks", level=3, worth=4, minutes=20,
    needs="lesson 02, section 4",
    function="attention_in_chunks",
    returns={"o": "text head token value"},
    reference=lambda q, k, v, size: linear_attention(
        q, k, v, torch.zeros(q.shape[1], dtype=q.dtype), "chunked", chunk_size=size
    ),
    finished=OPERATORS,
    cases=chunk_cases,
    answers={"chunk by chunk": by_chunks, "every state": through_all_states},
    mistakes={
        "the map of all tokens was made at once: it should be only as large as a chunk": whole_map,
        "inside a chunk the future is not hidden": partial(by_chunks, mask=False),
        "the tokens of the chunk itself are left out": partial(by_chunks, near=False),
        "the chunks before are left out": partial(by_chunks, far=False),
        "the state takes in the chunk before it is read, so its tokens count twice": partial(
            by_chunks, update_first=True
        ),
        "the state holds the last chunk alone: it is replaced, not added to": partial(
            by_chunks, add=False
        ),
        "the last chunk, which is shorter, is left out": partial(by_chunks, drop=True),
        "q and k are swapped": lambda q, k, v, size: by_chunks(k, q, v, size),
        "the future is not hidden at all": lambda q, k, v, size: q @ (k.mT @ v),
        "the output is cut off after the last full chunk": lambda q, k, v, size: (
            whole_map(q, k, v, size)[:, :, : max(q.shape[2] // size * size, 1)]
        ),
    },
)  # fmt: skip

EXERCISES = [states, cost, with_sum, sum_gradient, in_chunks]
QUESTIONS = [
    Question(
        number="2.6", title="What a state cannot hold", level=2, worth=3, minutes=10,
        needs="lesson 02, section 5",
    ),
]  # fmt: skip
