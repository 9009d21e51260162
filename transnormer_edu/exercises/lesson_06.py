"""Exercises of lesson 06: a norm and its gradient, both mixers, and what a block holds."""

from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange

from transnormer_edu.attention import linear_attention
from transnormer_edu.exercises.cases import in_all_shapes, in_words, some_do_not_decay, with_zeros
from transnormer_edu.exercises.exercise import Case, Exercise, Question
from transnormer_edu.norm import EPS, srmsnorm

# --- 6.1 ------------------------------------------------------------------------------------------


def rows(draw):
    yield from in_all_shapes(
        draw, lambda draw, sizes: {"x": 3 * draw.normal(*sizes.values()) + 1}, "b", "n", "d"
    )
    tiny = 1e-3 * draw.normal(3, 5)
    yield Case("With rows so small that ε counts", {"x": tiny})
    yield Case("With a row of zeros", {"x": torch.cat([draw.normal(1, 4), torch.zeros(1, 4)])})
    large = draw.uniform(3, 7, low=300, high=900, dtype=torch.float16)
    yield Case("With float16, where squares above 65504 do not fit", {"x": large})
    huge = draw.uniform(3, 7, low=20000, high=32000, dtype=torch.float16)
    yield Case("With float16 and numbers around 30000", {"x": huge})
    yield Case("In bfloat16", {"x": draw.normal(3, 7, dtype=torch.bfloat16)})


def mean_square(x):
    return x.square().mean(-1, keepdim=True)


def wide(x):
    return x.to(torch.promote_types(x.dtype, torch.float32))


def norm_by_length(x):
    """By the length of a row and √d."""
    long = torch.linalg.vector_norm(wide(x), dim=-1, keepdim=True)
    return (wide(x) / torch.sqrt(long**2 / x.shape[-1] + EPS)).to(x.dtype)


norm = Exercise(
    number="6.1", title="SRMSNorm", level=1, worth=2, minutes=8,
    needs="lesson 06, section 2",
    function="simple_norm",
    returns={"y": "text token feature"},
    reference=srmsnorm,
    finished={"srmsnorm"},
    cases=rows,
    answers={
        "by a root of the mean square": lambda x: (
            wide(x) * torch.rsqrt(mean_square(wide(x)) + EPS)
        ).to(x.dtype),
        "by the length": norm_by_length,
        "PyTorch's": lambda x: F.rms_norm(wide(x), x.shape[-1:], eps=EPS).to(x.dtype),
    },
    mistakes={
        "ε is missing: a row of zeros is divided by 0": lambda x: (
            (wide(x) * torch.rsqrt(mean_square(wide(x)))).to(x.dtype)
        ),
        "ε was added to the root, not under it": lambda x: (
            (wide(x) / (mean_square(wide(x)).sqrt() + EPS)).to(x.dtype)
        ),
        "the squares were summed, not averaged": lambda x: (
            (wide(x) * torch.rsqrt(wide(x).square().sum(-1, keepdim=True) + EPS)).to(x.dtype)
        ),
        "the root is missing": lambda x: (wide(x) / (mean_square(wide(x)) + EPS)).to(x.dtype),
        "the mean was taken away first: this is LayerNorm": lambda x: srmsnorm(
            wide(x) - wide(x).mean(-1, keepdim=True)
        ).to(x.dtype),
        "one size was taken for all rows": lambda x: (
            (wide(x) * torch.rsqrt(wide(x).square().mean() + EPS)).to(x.dtype)
        ),
        "the mean runs over the tokens, not over the features": lambda x: (
            (wide(x) * torch.rsqrt(wide(x).square().mean(-2, keepdim=True) + EPS)).to(x.dtype)
        ),
        "the sizes were averaged, not the squares": lambda x: (
            (wide(x) / torch.sqrt(wide(x).abs().mean(-1, keepdim=True) ** 2 + EPS)).to(x.dtype)
        ),
        "the squares do not fit into float16: compute in float32 and cast back": lambda x: (
            x * torch.rsqrt(mean_square(x) + EPS)
        ),
        "a fixed factor made the squares smaller: for float16 cast to float32 instead": lambda x: (
            x / 100 * torch.rsqrt(mean_square(x / 100) + EPS / 100**2)
        ),
        "ε is 1e-5, not 1e-6": lambda x: srmsnorm(x, 1e-5),
    },
)  # fmt: skip

# --- 6.2 ------------------------------------------------------------------------------------------


def rows_and_gradients(draw):
    def make(draw, sizes):
        shape = tuple(sizes.values())
        return {"x": 3 * draw.normal(*shape) + 1, "dy": draw.normal(*shape)}

    yield from in_all_shapes(draw, make, "b", "n", "d")
    tiny = {name: 1e-3 * x for name, x in make(draw, {"n": 3, "d": 5}).items()}
    yield Case("With rows so small that ε counts", tiny)
    holes = make(draw, {"n": 3, "d": 5})
    holes |= {"x": with_zeros(holes["x"])}
    yield Case("With a feature that is 0, and a row of zeros", holes)


def norm_back(x, dy, *, along=lambda x, y: y, scale=lambda rho: rho, mean=True, project=True):
    rho = torch.rsqrt(mean_square(x) + EPS)
    y = rho * x
    total = (along(x, y) * dy).sum(-1, keepdim=True) / (x.shape[-1] if mean else 1)
    return scale(rho) * (dy - y * total if project else dy)


def norm_back_by_autograd(x, dy):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(srmsnorm(x), x, dy)[0]


def norm_back_by_jacobian(x, dy):
    d, rho = x.shape[-1], torch.rsqrt(mean_square(x) + EPS)[..., None]
    jacobian = rho * torch.eye(d, dtype=x.dtype) - rho**3 * x[..., :, None] * x[..., None, :] / d
    return (jacobian @ dy[..., None]).squeeze(-1)


norm_gradient = Exercise(
    number="6.2", title="Its gradient", level=2, worth=3, minutes=20,
    needs="lesson 06, section 3, and 6.1",
    function="norm_backward",
    returns={"dx": "text token feature"},
    reference=norm_back,
    cases=rows_and_gradients,
    answers={"autograd": norm_back_by_autograd, "all derivatives": norm_back_by_jacobian},
    mistakes={
        "only the direct path is there: ρ depends on x too": partial(norm_back, project=False),
        "the factor ρ in front is missing": partial(norm_back, scale=lambda rho: 1.0),
        "the product was summed, not averaged": partial(norm_back, mean=False),
        "x stands in the mean where y belongs": partial(norm_back, along=lambda x, y: x),
        "ρ was divided by, not multiplied with": partial(norm_back, scale=lambda rho: 1 / rho),
        "the part along y was added, not taken away": lambda x, dy: (
            2 * norm_back(x, dy, project=False) - norm_back(x, dy)
        ),
        "ρ stands there cubed for both paths": partial(norm_back, scale=lambda rho: rho**3),
        "the mean of dy was taken away, as in LayerNorm": lambda x, dy: (
            torch.rsqrt(mean_square(x) + EPS) * (dy - dy.mean(-1, keepdim=True))
        ),
        "one mean was taken over all rows": lambda x, dy: (
            torch.rsqrt(mean_square(x) + EPS) * (dy - srmsnorm(x) * (srmsnorm(x) * dy).mean())
        ),
    },
    gradients=False,
)  # fmt: skip

# --- 6.3 ------------------------------------------------------------------------------------------


def channel_mixers(draw):
    def make(draw, sizes):
        b, n, d, g, e = (sizes[name] for name in ("b", "n", "d", "g", "e"))
        shapes = {"W1": (d, g), "W2": (d, g), "W3": (g, e)}
        return {"x": draw.normal(b, n, d)} | {W: draw.normal(*s) for W, s in shapes.items()}

    yield from in_all_shapes(draw, make, "b", "n", "d", "g", "e")


def glu(x, W1, W2, W3, *, act=lambda a: a, combine=torch.mul):
    return combine(act(x @ W1), x @ W2) @ W3


def glu_by_einsum(x, W1, W2, W3):
    return torch.einsum("b n d, b n c, d g, c g, g e -> b n e", x, x, W1, W2, W3)


sglu = Exercise(
    number="6.3", title="SGLU", level=1, worth=1, minutes=6,
    needs="lesson 06, section 6",
    function="simple_glu",
    returns={"y": "text token feature"},
    reference=glu,
    finished={"SGLU"},
    cases=channel_mixers,
    answers={"one sum over all": glu_by_einsum, "line by line": partial(glu)},
    mistakes={
        "an activation was put on the gate: the simple one has none": partial(glu, act=F.silu),
        "the gate went through a sigmoid": partial(glu, act=torch.sigmoid),
        "the two maps were added, not multiplied": partial(glu, combine=torch.add),
        "W1 was used twice": lambda x, W1, W2, W3: glu(x, W1, W1, W3),
        "W2 was used twice": lambda x, W1, W2, W3: glu(x, W2, W2, W3),
        "the gate was applied after W3": lambda x, W1, W2, W3: (x @ W1 @ W3) * (x @ W2 @ W3),
        "W2 is left out": lambda x, W1, W2, W3: x @ W1 @ W3,
        "x was added: the block does that, not the mixer": lambda x, W1, W2, W3: (
            glu(x, W1, W2, W3) + F.pad(x, (0, W3.shape[1]))[..., : W3.shape[1]]
        ),
    },
)  # fmt: skip

# --- 6.4 ------------------------------------------------------------------------------------------


def token_mixers(draw):
    def make(draw, sizes):
        b, h, n, d, e = (sizes[name] for name in ("b", "h", "n", "d", "e"))
        shapes = {"W_qkvu": (d, 4 * h * e), "W_out": (h * e, d)}
        tensors = {"x": draw.normal(b, n, d)} | {W: draw.normal(*s) for W, s in shapes.items()}
        return tensors | {"rate": draw.rates(h)}

    names = ("b", "h", "n", "d", "e")
    yield from in_all_shapes(draw, make, *names)
    sizes = draw.sizes(*names)
    x = make(draw, sizes)
    still = x | {"rate": some_do_not_decay(x["rate"])}
    yield Case(in_words("a head that does not decay", sizes), still)
    fast = x | {"rate": x["rate"] + 800}
    yield Case(in_words("heads that forget at once (rates above 800)", sizes), fast)
    yield Case(in_words("numbers around 1000", sizes), x | {"x": 1000 * x["x"]})


JOIN = "b h n e -> b n (h e)"
CUT = "b n (h e) -> b h n e"


def gla(
    x, W_qkvu, W_out, rate, *, order=(0, 1, 2, 3), act=F.silu, act_v=lambda v: v,
    act_u=lambda u: u, normed=srmsnorm, cut=CUT, join=JOIN, attend=linear_attention,
    combine=torch.mul, gate_first=False,
):  # fmt: skip
    """The token mixer; each option is one thing that can be got wrong."""
    parts = (x @ W_qkvu).chunk(4, -1)
    q, k, v, u = (parts[i] for i in order)
    q, k, v = (rearrange(part, cut, h=len(rate)) for part in (q, k, v))
    o = rearrange(attend(act(q), act(k), act_v(v), rate), join)
    u = act_u(u)
    return (normed(u * o) if gate_first else combine(u, normed(o))) @ W_out


def distances(q):
    position = torch.arange(q.shape[2])
    return (position[:, None] - position).to(q.dtype)


def gla_head_by_head(x, W_qkvu, W_out, rate):
    heads = len(rate)
    W_q, W_k, W_v, W_u = W_qkvu.chunk(4, 1)
    columns = zip(*(W.chunk(heads, 1) for W in (W_q, W_k, W_v)), rate, strict=True)
    outputs = []
    for w_q, w_k, w_v, r in columns:
        q, k, v = F.silu(x @ w_q), F.silu(x @ w_k), x @ w_v
        age = torch.arange(x.shape[1])[:, None] - torch.arange(x.shape[1])
        mask = torch.exp(-r * age.clamp(min=0)).tril().to(x.dtype)
        outputs.append((q @ k.mT * mask) @ v)
    return ((x @ W_u) * srmsnorm(torch.cat(outputs, -1))) @ W_out


def norm_of_each_head(heads):
    return lambda o: rearrange(
        srmsnorm(rearrange(o, "b n (h e) -> b n h e", h=heads)), "b n h e -> b n (h e)"
    )


gla_exercise = Exercise(
    number="6.4", title="Gated linear attention", level=3, worth=5, minutes=30,
    needs="lesson 06, sections 4 and 5",
    function="gated_attention",
    returns={"y": "text token feature"},
    reference=gla,
    finished={"GLA"},
    cases=token_mixers,
    answers={"head by head": gla_head_by_head, "all heads at once": partial(gla)},
    mistakes={
        "each head was normed by itself: the norm spans all heads": lambda x, W, W_out, rate: gla(
            x, W, W_out, rate, normed=norm_of_each_head(len(rate))
        ),
        "the norm is missing": partial(gla, normed=lambda o: o),
        "the gate comes before the norm, which takes its size away": partial(gla, gate_first=True),
        "the gate is missing": partial(gla, act_u=torch.ones_like),
        "the gate went through silu": partial(gla, act_u=F.silu),
        "the gate went through a sigmoid": partial(gla, act_u=torch.sigmoid),
        "q and k are without their activation": partial(gla, act=lambda q: q),
        "v went through the activation too": partial(gla, act_v=F.silu),
        "the order is not q, k, v, u: k comes first here": partial(gla, order=(1, 0, 2, 3)),
        "the order is not q, k, v, u: u comes first here": partial(gla, order=(1, 2, 3, 0)),
        "the heads are cut the wrong way round": partial(gla, cut="b n (e h) -> b h n e"),
        "the heads are joined the wrong way round": partial(gla, join="b h n e -> b n (e h)"),
        "the order is not q, k, v, u: v and u are swapped here": partial(gla, order=(0, 1, 3, 2)),
        "the gate was added, not multiplied": partial(gla, combine=torch.add),
        "the norm comes after the last matrix": lambda x, W, W_out, rate: srmsnorm(
            gla(x, W, W_out, rate, normed=lambda o: o)
        ),
        "the scores are divided by √d: the norm hides that, but for ε": (
            lambda x, W, W_out, rate: gla(
                x, W, W_out, rate,
                normed=lambda o: srmsnorm(o / (len(W_out) / len(rate)) ** 0.5),
            )
        ),
        "the newest token is decayed as well": partial(
            gla, attend=lambda q, k, v, rate: linear_attention(
                q, k, v * torch.exp(-rate)[:, None, None], rate
            )
        ),
        "the future is not hidden": partial(
            gla, attend=lambda q, k, v, rate: (
                (q @ k.mT * torch.exp(-rate[:, None, None] * distances(q).abs())) @ v
            )
        ),
        "the rate was taken for λ": lambda x, W, W_out, rate: gla(x, W, W_out, -rate.log()),
        "nothing fades": lambda x, W, W_out, rate: gla(x, W, W_out, 0 * rate),
        "all heads fade like the first": lambda x, W, W_out, rate: gla(
            x, W, W_out, rate[:1].expand_as(rate)
        ),
        "x was added: the block does that, not the mixer": lambda x, W, W_out, rate: (
            x + gla(x, W, W_out, rate)
        ),
    },
)  # fmt: skip

# --- 6.5 ------------------------------------------------------------------------------------------


def models(draw):
    for layers in (24, 3, 1):
        sizes = draw.sizes("dim", "glu_dim", "vocab", least=30)
        yield Case(in_words("", sizes | {"layers": layers}), sizes | {"layers": layers})
    released = {"dim": 1024, "glu_dim": 2816, "vocab": 64000, "layers": 24}
    yield Case("With the released 385M model", released)


def count(dim, glu_dim, vocab, layers, *, mixer=5, glu=3, tables=1, angles=1):
    return layers * (mixer * dim**2 + glu * dim * glu_dim) + tables * vocab * dim + angles * dim


parameters = Exercise(
    number="6.5", title="What a model holds", level=1, worth=2, minutes=8,
    needs="lesson 06, section 7",
    function="parameters_of",
    returns={"parameters": ""},
    reference=count,
    cases=models,
    answers={
        "the formula": lambda dim, glu_dim, vocab, layers: (
            dim * (layers * (5 * dim + 3 * glu_dim) + vocab + 1)
        ),
        "shape by shape": lambda dim, glu_dim, vocab, layers: sum(
            a * b
            for a, b in [
                *[(4 * dim, dim), (dim, dim), (glu_dim, dim), (glu_dim, dim), (dim, glu_dim)]
                * layers,
                (vocab, dim), (1, dim),
            ]
        ),
    },
    mistakes={
        "the output matrix of GLA is left out": partial(count, mixer=4),
        "the gate is left out: GLA has four maps and the output": partial(
            count, mixer=3
        ),
        "SGLU has three matrices, not two": partial(count, glu=2),
        "the embedding was counted twice: the head shares it": partial(count, tables=2),
        "the embedding is left out": partial(count, tables=0),
        "the angles of LRPE, one for each feature of the first layer, are left out": partial(
            count, angles=0
        ),
        "each layer was given angles: only the first has LRPE": lambda *sizes: count(
            *sizes, angles=sizes[-1]
        ),
        "weights were counted for the norms, which have none": lambda dim, glu_dim, vocab, layers: (
            count(dim, glu_dim, vocab, layers) + layers * 2 * dim
        ),
    },
    gradients=False,
)  # fmt: skip

EXERCISES = [norm, norm_gradient, sglu, gla_exercise, parameters]
QUESTIONS = [
    Question(
        number="6.6", title="One norm or many", level=2, worth=3, minutes=10,
        needs="lesson 06, section 5",
    ),
]  # fmt: skip
