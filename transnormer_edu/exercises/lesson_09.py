"""Exercises of lesson 09: three gradients by one operator, the gated norm, one token, segments."""

from functools import partial

import torch
from torch.nn.functional import pad

from transnormer_edu.attention import linear_attention
from transnormer_edu.decay import decay_mask
from transnormer_edu.exercises.borrowed import OPERATORS
from transnormer_edu.exercises.cases import (
    in_all_shapes,
    in_words,
    operands,
    some_do_not_decay,
    with_zeros,
)
from transnormer_edu.exercises.exercise import Case, Exercise, Question
from transnormer_edu.norm import EPS

NAMES = ("b", "h", "n", "dk", "dv")

# --- 9.1 ------------------------------------------------------------------------------------------


def back_cases(draw):
    def make(draw, sizes):
        given = operands(draw, **sizes)
        return given | {"do": draw.normal(*given["v"].shape), "rate": draw.rates(sizes["h"])}

    yield from in_all_shapes(draw, make, *NAMES)
    sizes = draw.sizes(*NAMES)
    fast = make(draw, sizes) | {"rate": draw.uniform(sizes["h"], low=70, high=90)}
    yield Case(in_words("heads that forget at once (rates above 70)", sizes), fast)
    still = make(draw, sizes)
    still["rate"] = some_do_not_decay(still["rate"])
    yield Case(in_words("a head that does not decay", sizes), still)


def ahead(q, k, v, rate):
    """LA: causal, forwards in time."""
    return linear_attention(q, k, v, rate)


def back_in_time(q, k, v, rate):
    """AL: the same, from the last token to the first."""
    flipped = (x.flip(2) for x in (q, k, v))
    return linear_attention(*flipped, rate).flip(2)


def flip_only_inputs(q, k, v, rate):
    return linear_attention(*(x.flip(2) for x in (q, k, v)), rate)


def by_operator(q, k, v, do, rate, *, forth=ahead, back=back_in_time):
    return forth(do, v, k, rate), back(v, do, q, rate), back(k, q, do, rate)


def by_autograd(q, k, v, do, rate):
    given = [x.clone().requires_grad_() for x in (q, k, v)]
    return torch.autograd.grad(linear_attention(*given, rate), given, do)


def by_maps(q, k, v, do, rate):
    mask = decay_mask(rate, q.shape[2])
    weights, toward = (q @ k.mT) * mask, (do @ v.mT) * mask
    return toward @ k, toward.mT @ q, weights.mT @ do


def without_mask(q, k, v, do, rate):
    mask = decay_mask(rate, q.shape[2])
    return (do @ v.mT) @ k, (do @ v.mT).mT @ q, (q @ k.mT * mask).mT @ do


three = Exercise(
    number="9.1", title="Three gradients, one operator", level=2, worth=3, minutes=15,
    needs="lesson 09, section 2",
    function="three_gradients",
    returns={"dq": "text head token key", "dk": "text head token key",
             "dv": "text head token value"},
    reference=by_maps,
    cases=back_cases,
    answers={"autograd": by_autograd, "the operator, there and back": by_operator},
    mistakes={
        "the gradients of keys and values run forwards too": partial(by_operator, back=ahead),
        "the gradient of the queries runs backwards too": partial(by_operator, forth=back_in_time),
        "the inputs were turned round in time, but not what came out": partial(
            by_operator, back=flip_only_inputs
        ),
        "dq and dk are swapped": lambda *x: (by_maps(*x)[1], by_maps(*x)[0], by_maps(*x)[2]),
        "the mask is missing in dP = dO Vᵀ": without_mask,
        "nothing decays": lambda q, k, v, do, rate: by_maps(q, k, v, do, 0 * rate),
        "dv was made with q and k in each other's place": lambda q, k, v, do, rate: (
            *by_maps(q, k, v, do, rate)[:2], back_in_time(q, k, do, rate)
        ),
        "all heads decay like the first": lambda q, k, v, do, rate: by_maps(
            q, k, v, do, rate[:1].expand_as(rate)
        ),
        "q stands in dk where k belongs in dq: both were made of q": lambda q, k, v, do, rate: (
            ahead(do, v, q, rate), *by_maps(q, k, v, do, rate)[1:]
        ),
    },
    gradients=False,
)  # fmt: skip

# --- 9.2 ------------------------------------------------------------------------------------------


def gates(draw):
    def make(draw, sizes):
        shape = tuple(sizes.values())
        return {"x": 2 * draw.normal(*shape) + 1, "u": draw.normal(*shape),
                "dy": draw.normal(*shape)}  # fmt: skip

    yield from in_all_shapes(draw, make, "b", "n", "d")
    tiny = make(draw, {"n": 3, "d": 5})
    yield Case("With rows so small that ε counts", tiny | {"x": 1e-3 * tiny["x"]})
    holes = make(draw, {"n": 3, "d": 5})
    holes |= {"x": with_zeros(holes["x"])}
    yield Case("With a feature that is 0, and a row of zeros", holes)


def mean(x):
    return x.mean(-1, keepdim=True)


def gated(
    x, u, dy, *, gate=torch.mul, project=True, at=lambda x, y: y, seen=lambda g, dy: g, front=True
):
    rho = torch.rsqrt(mean(x**2) + EPS)
    y, g = rho * x, gate(u, dy)
    inner = g - (y * mean(at(x, y) * seen(g, dy)) if project else 0)
    return (rho if front else 1) * inner, dy * y


def gated_by_autograd(x, u, dy):
    x, u = (part.clone().requires_grad_() for part in (x, u))
    y = u * x * torch.rsqrt(mean(x**2) + EPS)
    return torch.autograd.grad(y, (x, u), dy)


def gated_by_jacobian(x, u, dy):
    d, rho = x.shape[-1], torch.rsqrt(mean(x**2) + EPS)
    along = ((u * dy * x).sum(-1, keepdim=True)) * rho**3 / d
    return rho * u * dy - along * x, dy * x * rho


gated_norm = Exercise(
    number="9.2", title="Back through norm and gate", level=2, worth=3, minutes=15,
    needs="lesson 09, section 7, and 6.2",
    function="gated_norm_backward",
    returns={"dx": "text token feature", "du": "text token feature"},
    reference=gated,
    cases=gates,
    answers={"autograd": gated_by_autograd, "both paths written out": gated_by_jacobian},
    mistakes={
        "the gate is left out on the way to x": partial(gated, gate=lambda u, dy: dy),
        "only the direct path is there: ρ depends on x too": partial(gated, project=False),
        "the factor ρ in front is missing": partial(gated, front=False),
        "x stands in the mean where the normed x belongs": partial(gated, at=lambda x, y: x),
        "inside the mean the gate is missing": partial(gated, seen=lambda g, dy: dy),
        "the gradient of the gate was made with x, not with the normed x": lambda x, u, dy: (
            gated(x, u, dy)[0], dy * x
        ),
        "the gradient of the gate holds the gate itself": lambda x, u, dy: (
            gated(x, u, dy)[0], u * gated(x, u, dy)[1]
        ),
        "dx and du are swapped": lambda x, u, dy: gated(x, u, dy)[::-1],
    },
    gradients=False,
)  # fmt: skip

# --- 9.3 ------------------------------------------------------------------------------------------


def decode_cases(draw):
    def make(draw, sizes):
        b, h, dk, dv = (sizes[name] for name in ("b", "h", "dk", "dv"))
        return {
            "q": draw.normal(b, h, dk), "k": draw.normal(b, h, dk), "v": draw.normal(b, h, dv),
            "rate": draw.rates(h), "state": draw.normal(b, h, dk, dv),
        }  # fmt: skip

    yield from in_all_shapes(draw, make, "b", "h", "dk", "dv", float32=False)
    sizes = draw.sizes("b", "h", "dk", "dv")
    half = make(draw, sizes)
    half |= {name: half[name].bfloat16() for name in ("q", "k", "v")}
    half |= {name: half[name].float() for name in ("rate", "state")}
    yield Case(in_words("q, k, v in bfloat16, rate and state in float32", sizes), half)
    one = {"b": 1, "h": 1, "dk": 2, "dv": 1}
    half = {"q": torch.tensor([1.0, -1.0]).view(1, 1, 2), "k": torch.zeros(1, 1, 2)}
    half = {name: x.bfloat16() for name, x in (half | {"v": torch.zeros(1, 1, 1)}).items()}
    rows = {"rate": torch.zeros(1), "state": torch.tensor([257.0, 256.0]).view(1, 1, 2, 1)}
    yield Case(
        in_words("q in bfloat16, and rows of the state that nearly cancel", one), half | rows
    )


def step(q, k, v, rate, state, *, keep=None, old=False, twice=False, dtype=None):
    wide = dtype or state.dtype
    keep = torch.exp(-rate.to(wide)) if keep is None else keep(rate)
    new = k.to(wide)[..., :, None] * v.to(wide)[..., None, :]
    after = keep[:, None, None] * (state.to(wide) + new if twice else state.to(wide))
    after = after if twice else after + new
    read = state.to(wide) if old else after
    o = (q.to(wide)[..., None, :] @ read)[..., 0, :]
    return o.to(v.dtype), after


def step_by_package(q, k, v, rate, state):
    parts = (x[:, :, None] for x in (q, k, v))
    o, state = linear_attention(*parts, rate, "recurrent", state=state, return_state=True)
    return o[:, :, 0], state


def step_by_einsum(q, k, v, rate, state):
    q32, k32, v32 = (x.to(state.dtype) for x in (q, k, v))
    faded = torch.einsum("h, b h i j -> b h i j", torch.exp(-rate), state)
    o = torch.einsum("b h i, b h i j -> b h j", q32, faded) + (q32 * k32).sum(-1)[..., None] * v32
    return o.to(v.dtype), faded + torch.einsum("b h i, b h j -> b h i j", k32, v32)


def step_in_place(q, k, v, rate, state):
    o, new = step(q, k, v, rate, state)
    return o, state.copy_(new)


def narrow_state(q, k, v, rate, state):
    o, new = step(q, k, v, rate, state)
    return o, new.to(v.dtype)


decode = Exercise(
    number="9.3", title="One token at a time", level=2, worth=2, minutes=10,
    needs="lesson 09, section 7",
    function="decode_one",
    returns={"o": "text head value", "state": "text head key value"},
    reference=step_by_package,
    finished=OPERATORS,
    cases=decode_cases,
    answers={"fade, add, read": step, "without reading the new state": step_by_einsum},
    mistakes={
        "the newest token is decayed as well": partial(step, twice=True),
        "the state is read before the newest token is in it": partial(step, old=True),
        "nothing decays": partial(step, keep=torch.ones_like),
        "the rate was taken for λ": partial(step, keep=lambda rate: rate),
        "all heads decay like the first": lambda q, k, v, rate, state: step(
            q, k, v, rate[:1].expand_as(rate), state
        ),
        "q and k are swapped": lambda q, k, *others: step(k, q, *others),
        "the state that was given is written over": step_in_place,
        "the state came back in the narrow type of v: it is kept in float32": narrow_state,
        "the state came back as it was given": lambda *x: (step(*x)[0], x[-1].clone()),
    },
)  # fmt: skip

# --- 9.4 ------------------------------------------------------------------------------------------


def segments(draw):
    def make(draw, sizes, c=4, dtype=torch.float64):
        b, h, dk, dv = (sizes[name] for name in ("b", "h", "dk", "dv"))
        lengths = draw.random.sample(range(1, 9), c)
        own = draw.normal(b, h, c, dk, dv, dtype=dtype)
        return {"own": own, "lengths": lengths, "rate": draw.rates(h, dtype=dtype)}

    yield from in_all_shapes(draw, make, "b", "h", "dk", "dv")
    sizes = draw.sizes("b", "h", "dk", "dv")
    for c in (1, 2, 7):
        yield Case(in_words(f"{c} segments", sizes), make(draw, sizes, c))
    no_decay = make(draw, sizes) | {"rate": torch.zeros(sizes["h"], dtype=torch.float64)}
    yield Case(in_words("heads that do not decay", sizes), no_decay)
    yield Case(in_words("segments of one length", sizes), make(draw, sizes) | {"lengths": 4 * [3]})
    long = make(draw, sizes) | {"lengths": [900, 40, 1200, 7]}
    yield Case(in_words("long segments", sizes), long)


def arriving(own, lengths, rate, *, inclusive=False, fade=True, shift=0, first=None):
    """What reaches each segment; each option is one thing that can be got wrong."""
    state, states = torch.zeros_like(own[:, :, 0]), []
    steps = [first or lengths[0]] * len(lengths) if first else lengths
    steps = (steps[shift:] + steps[:shift]) if shift else steps
    for i, length in enumerate(steps):
        before = state
        keep = torch.exp(-rate * length)[:, None, None] if fade else 1.0
        state = keep * state + own[:, :, i]
        states.append(state if inclusive else before)
    return torch.stack(states, dim=2)


def arriving_by_matrix(own, lengths, rate):
    ends = torch.tensor(lengths, dtype=own.dtype).cumsum(0)
    starts = torch.nn.functional.pad(ends, (1, 0))[:-1]
    gap = (starts[:, None] - ends).clamp(min=0)  # from the end of s to the start of t
    weight = torch.exp(-rate[:, None, None] * gap).tril(-1)
    return torch.einsum("h t s, b h s i j -> b h t i j", weight, own)


def arriving_by_scan(own, lengths, rate):
    """Each segment's own loop over all before it."""
    rows = []
    for t in range(len(lengths)):
        total = torch.zeros_like(own[:, :, 0])
        for s in range(t):
            between = sum(lengths[s + 1 : t])
            total = total + torch.exp(-rate * between)[:, None, None] * own[:, :, s]
        rows.append(total)
    return torch.stack(rows, dim=2)


def only_neighbour(own, lengths, rate):
    return pad(own, (0, 0, 0, 0, 1, 0))[:, :, :-1]


in_segments = Exercise(
    number="9.4", title="What reaches a segment", level=3, worth=4, minutes=25,
    needs="lesson 09, section 6",
    function="arriving_states",
    returns={"states": "text head segment key value"},
    reference=arriving,
    cases=segments,
    answers={"all pairs at once": arriving_by_matrix, "pair by pair": arriving_by_scan},
    mistakes={
        "a segment's own state is in what reaches it": partial(arriving, inclusive=True),
        "nothing fades from segment to segment": partial(arriving, fade=False),
        "only the segment just before reaches it": only_neighbour,
        "all segments were taken to be as long as the first": lambda own, lengths, rate: arriving(
            own, lengths, rate, first=lengths[0]
        ),
        "it fades by the length of the next segment, not of the one it crosses": partial(
            arriving, shift=1
        ),
        "it fades by one token for each segment": lambda own, lengths, rate: arriving(
            own, [1] * len(lengths), rate
        ),
        "the segment's own length was counted twice: its state is already faded to its end": (
            lambda own, lengths, rate: arriving(
                own * torch.stack(
                    [torch.exp(-rate * length) for length in lengths], -1
                )[..., None, None], lengths, rate,
            )
        ),
        "all heads decay like the first": lambda own, lengths, rate: arriving(
            own, lengths, rate[:1].expand_as(rate)
        ),
        "what comes after was taken, not what came before": lambda own, lengths, rate: (
            arriving(own.flip(2), lengths[::-1], rate).flip(2)
        ),
    },
)  # fmt: skip

EXERCISES = [three, gated_norm, decode, in_segments]
QUESTIONS = [
    Question(
        number="9.5", title="Seven tensors or ten", level=2, worth=3, minutes=10,
        needs="lesson 09, sections 4 to 6",
    ),
]  # fmt: skip
