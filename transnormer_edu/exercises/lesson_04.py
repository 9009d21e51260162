"""Exercises of lesson 04: decay as a rate, a mask, a schedule, a loop and in chunks."""

import math
from functools import partial

import torch

from transnormer_edu.attention import linear_attention
from transnormer_edu.decay import decay_mask, paper_rates, released_rates
from transnormer_edu.exercises.borrowed import OPERATORS
from transnormer_edu.exercises.cases import (
    LONG,
    in_all_shapes,
    in_words,
    operands,
    some_do_not_decay,
    without_a_map,
)
from transnormer_edu.exercises.exercise import Case, Exercise, Question

# --- 4.1 ------------------------------------------------------------------------------------------


def half_lives(draw):
    for what, shape in (("several heads", (5,)), ("heads and layers", (2, 7)), ("one head", (1,))):
        yield Case(f"With {what}", {"tokens": draw.uniform(*shape, low=0.3, high=90)})
    yield Case("With a head that never forgets", {"tokens": torch.tensor([4.0, math.inf]).double()})
    yield Case("With less than a token", {"tokens": torch.tensor([0.4, 3.0]).double()})
    yield Case("In float32", {"tokens": draw.uniform(3, low=1, high=50, dtype=torch.float32)})


rate_of_half_life = Exercise(
    number="4.1", title="A rate for a half-life", level=1, worth=1, minutes=5,
    needs="lesson 04, section 2",
    function="rate_of_half_life",
    returns={"rate": ""},
    reference=lambda tokens: math.log(2) / tokens,
    cases=half_lives,
    answers={
        "the formula": lambda tokens: math.log(2) / tokens,
        "by way of λ": lambda tokens: -torch.log(0.5 ** (1 / tokens)),
    },
    mistakes={
        "this is the rate of a window, after which 1/e is left": lambda tokens: 1 / tokens,
        "the fraction is upside down": lambda tokens: tokens / math.log(2),
        "rate and half-life were multiplied, not divided": lambda tokens: math.log(2) * tokens,
        "λ came back, not the rate": lambda tokens: 0.5 ** (1 / tokens),
        "the sign is wrong: a rate is never negative": lambda tokens: math.log(0.5) / tokens,
        "the logarithm is to base 10": lambda tokens: math.log10(2) / tokens,
        "2 was taken where ln 2 belongs": lambda tokens: 2 / tokens,
    },
)  # fmt: skip

# --- 4.2 ------------------------------------------------------------------------------------------


def ages(rate, n):
    position = torch.arange(n)
    return (position[:, None] - position).to(rate.dtype)


def powers(rate, age):
    return torch.exp(-rate[:, None, None] * age)


def masks(draw):
    h, n = 5, draw.random.choice((7, 9, 11))
    yield Case(f"With {h} heads, n={n}", {"rate": draw.rates(h), "n": n})
    yield Case("With other rates", {"rate": draw.rates(h), "n": n})
    still = torch.tensor([0.3, 0.0, 0.1])
    yield Case("With a head that does not decay", {"rate": still.double(), "n": 7})
    yield Case("With rates in float32, one of them 0", {"rate": still, "n": 7})
    fast = torch.tensor([0.2, 70.0]).double()
    yield Case("With a head that forgets at once (rate 70)", {"rate": fast, "n": 13})
    yield Case("With a rate of 800", {"rate": torch.tensor([800.0, 0.3]).double(), "n": 5})
    yield Case("With a single token", {"rate": draw.rates(3), "n": 1})
    yield Case("With one head", {"rate": draw.rates(1), "n": 5})


def mask_pair_by_pair(rate, n):
    mask = torch.zeros(len(rate), n, n, dtype=rate.dtype)
    for t in range(n):
        for s in range(t + 1):
            mask[:, t, s] = torch.exp(-rate * (t - s))
    return mask


def cut_by_product(rate, n):
    """Cuts by r (t - s), which at rate 0 is 0 for the future too."""
    x = rate[:, None, None] * ages(rate, n)
    return torch.exp(-x.clamp(min=0)) * (x >= 0)


def shifted_mask(rate, n):
    age = ages(rate, n)
    return torch.where(age > 0, powers(rate, age.clamp(min=0)), 0.0).to(rate.dtype)


mask = Exercise(
    number="4.2", title="The mask of decay", level=2, worth=2, minutes=10,
    needs="lesson 04, section 1",
    function="mask_of_decay",
    returns={"mask": "head reader read-token"},
    reference=decay_mask,
    finished={"decay_mask"},
    cases=masks,
    answers={
        "all ages at once": lambda rate, n: powers(rate, ages(rate, n).clamp(min=0)).tril(),
        "pair by pair": mask_pair_by_pair,
    },
    mistakes={
        "the future gets in where the rate is 0: cut by t - s, not by r (t - s)": cut_by_product,
        "exponents of the future overflow, and are hidden too late: their gradient is no number": (
            lambda rate, n: powers(rate, ages(rate, n)).tril()
        ),
        "the future is not cut off": lambda rate, n: powers(rate, ages(rate, n)),
        "the future counts as much as the past": lambda rate, n: powers(rate, ages(rate, n).abs()),
        "the future was multiplied by 0, and infinity times 0 is no number": lambda rate, n: (
            powers(rate, ages(rate, n)) * torch.ones(n, n, dtype=rate.dtype).tril()
        ),
        "the newest token is decayed as well": lambda rate, n: (
            decay_mask(rate, n) * torch.exp(-rate)[:, None, None]
        ),
        "a token does not see itself": shifted_mask,
        "the rate was taken for λ": lambda rate, n: (
            (rate[:, None, None] ** ages(rate, n).clamp(min=0)).tril()
        ),
        "rows and columns are swapped": lambda rate, n: decay_mask(rate, n).mT,
        "all heads have the rate of the first": lambda rate, n: (
            decay_mask(rate[:1].expand(len(rate)), n)
        ),
        "the rate itself was subtracted for each step, not multiplied in": lambda rate, n: (
            (1 - rate[:, None, None] * ages(rate, n)).clamp(min=0).tril()
        ),
    },
)  # fmt: skip

# --- 4.3 ------------------------------------------------------------------------------------------


def schedules(draw):
    layers, inner = draw.random.randrange(20, 40), draw.random.randrange(4, 16)
    for heads, layer in ((8, inner), (8, 0), (4, layers - 1), (16, 3), (1, 2), (2, inner + 3)):
        inputs = {"heads": heads, "layer": layer, "layers": layers}
        yield Case(f"With {heads} heads, layer {layer} of {layers}", inputs)
    yield Case("With a model of one layer", {"heads": 4, "layer": 0, "layers": 1})
    yield Case("With a model of two layers", {"heads": 4, "layer": 1, "layers": 2})


def schedule(heads, layer, layers, *, first=1, base=2.0, depth=None):
    depth = 1 - layer / max(layers - 1, 1) + 1e-5 if depth is None else depth
    slopes = [base ** (-8 * (i + first) / heads) * depth for i in range(heads)]
    return torch.tensor(slopes, dtype=torch.float64)


def schedule_by_halving(heads, layer, layers):
    last = (layers - 1) or 1
    steps = torch.full((heads,), 2 ** (-8 / heads), dtype=torch.float64)
    return steps.cumprod(0) * ((last - layer) / last + 1e-5)


rates = Exercise(
    number="4.3", title="The rates of the released models", level=1, worth=2, minutes=10,
    needs="lesson 04, section 3",
    function="rates_of_layer",
    returns={"rate": "head"},
    reference=partial(released_rates, dtype=torch.float64),
    finished={"released_rates"},
    cases=schedules,
    answers={"formula (4)": schedule, "each head a step below the last": schedule_by_halving},
    mistakes={
        "heads are counted from 0": partial(schedule, first=0),
        "the layer is divided by L, not by L - 1": lambda heads, layer, layers: schedule(
            heads, layer, layers, depth=1 - layer / layers + 1e-5
        ),
        "the 1e-5 is missing": lambda heads, layer, layers: schedule(
            heads, layer, layers, depth=1 - layer / max(layers - 1, 1)
        ),
        "layers are counted from 1": lambda heads, layer, layers: schedule(
            heads, layer + 1, layers
        ),
        "the first layer has the rates of the last": lambda heads, layer, layers: schedule(
            heads, layer, layers, depth=layer / max(layers - 1, 1) + 1e-5
        ),
        "this is a power of e, not of 2": partial(schedule, base=math.e),
        "the factor of the layer is missing": partial(schedule, depth=1.0),
        "a model of one layer divides by zero": lambda heads, layer, layers: schedule(
            heads, layer, layers, depth=1 - layer / (layers - 1) + 1e-5
        ),
        "heads are in the opposite order": lambda *sizes: schedule(*sizes).flip(0),
        "this is the formula that the paper prints": partial(paper_rates, dtype=torch.float64),
        "λ came back, not the rate": lambda *sizes: torch.exp(-schedule(*sizes)),
    },
    gradients=False,
)  # fmt: skip

# --- 4.4 ------------------------------------------------------------------------------------------

NAMES = ("b", "h", "n", "dk", "dv")


def with_state(draw, sizes):
    b, h, dk, dv = (sizes[name] for name in ("b", "h", "dk", "dv"))
    return operands(draw, **sizes) | {"rate": draw.rates(h), "state": draw.normal(b, h, dk, dv)}


def loops(draw):
    yield from in_all_shapes(draw, with_state, *NAMES)
    sizes = draw.sizes(*NAMES)
    no_decay = with_state(draw, sizes) | {"rate": torch.zeros(sizes["h"], dtype=torch.float64)}
    yield Case(in_words("heads that do not decay", sizes), no_decay)
    fast = with_state(draw, sizes) | {"rate": draw.uniform(sizes["h"], low=70, high=90)}
    yield Case(in_words("heads that forget at once (rates above 70)", sizes), fast)


right_loop = partial(linear_attention, form="recurrent", return_state=True)


def by_loop(q, k, v, rate, state, *, keep=None, write_first=True, first_decays=True):
    keep = torch.exp(-rate) if keep is None else keep
    outputs = []
    for t in range(q.shape[2]):
        if t > 0 or first_decays:
            state = keep[:, None, None] * state
        before = state
        state = state + k[:, :, t, :, None] * v[:, :, t, None, :]
        outputs.append((q[:, :, t, None] @ (state if write_first else before))[:, :, 0])
    return torch.stack(outputs, dim=2), state


def by_whole_map(q, k, v, rate, state):
    age = torch.arange(q.shape[2] + 1, dtype=q.dtype)
    left = torch.exp(-rate[:, None] * age)[..., None]  # λ^age, (h, n+1, 1)
    o = (q @ k.mT * decay_mask(rate, q.shape[2])) @ v + left[:, 1:] * (q @ state)
    return o, left[:, -1:] * state + (left[:, :-1].flip(1) * k).mT @ v


def loop_in_place(q, k, v, rate, state):
    outputs = []
    for t in range(q.shape[2]):
        state.mul_(torch.exp(-rate)[:, None, None])
        state.add_(k[:, :, t, :, None] * v[:, :, t, None, :])
        outputs.append((q[:, :, t, None] @ state)[:, :, 0])
    return torch.stack(outputs, dim=2), state


def growing_loop(q, k, v, rate, state):
    """kv_t = kv_{t-1} + (k_t λ^-t) v_tᵀ, o_t = (q_t λ^t) kv_t: equal on paper."""
    outputs = []
    for t in range(1, q.shape[2] + 1):
        grow = torch.exp(rate * t)[:, None, None]
        state = state + grow * k[:, :, t - 1, :, None] * v[:, :, t - 1, None, :]
        outputs.append((q[:, :, t - 1, None] / grow @ state)[:, :, 0])
    return torch.stack(outputs, dim=2), state / grow


def newest_decayed(q, k, v, rate, state):
    return right_loop(q, k, v * torch.exp(-rate)[:, None, None], rate, state=state)


def decayed_at_the_end(q, k, v, rate, state):
    o, state = right_loop(q, k, v, rate, state=state)
    return o, torch.exp(-rate)[:, None, None] * state


loop = Exercise(
    number="4.4", title="Decay as a loop", level=2, worth=3, minutes=15,
    needs="lesson 04, section 5",
    function="decay_loop",
    returns={"o": "text head token value", "state": "text head key value"},
    reference=lambda q, k, v, rate, state: right_loop(q, k, v, rate, state=state),
    finished=OPERATORS,
    cases=loops,
    answers={"token by token": by_loop, "the whole map at once": by_whole_map},
    mistakes={
        "the newest token is decayed as well": newest_decayed,
        "the decay is missing": lambda q, k, v, rate, state: by_loop(q, k, v, 0 * rate, state),
        "q and k are swapped": lambda q, k, v, rate, state: by_loop(k, q, v, rate, state),
        "a token reads the state before it has written into it": partial(
            by_loop, write_first=False
        ),
        "the rate was taken for λ": lambda q, k, v, rate, state: by_loop(
            q, k, v, rate, state, keep=rate
        ),
        "all heads decay like the first": lambda q, k, v, rate, state: by_loop(
            q, k, v, rate[:1].expand(len(rate)), state
        ),
        "the state that was given is left out": lambda q, k, v, rate, state: by_loop(
            q, k, v, rate, 0 * state
        ),
        "the state that was given does not fade at the first token": partial(
            by_loop, first_decays=False
        ),
        "the state comes back one step too old": decayed_at_the_end,
        "the state came back as it was given": lambda *x: (by_loop(*x)[0], x[-1].clone()),
        "the last state came back with keys and values swapped": lambda *x: (
            by_loop(*x)[0], by_loop(*x)[1].mT
        ),
        "the outputs are one token late": lambda *x: (
            by_loop(*x)[0].roll(1, 2), by_loop(*x)[1]
        ),
        "the state that was given is written over": loop_in_place,
        "the state grows like λ^-t, which overflows: let no exponent be positive": growing_loop,
        "1 - r was taken for λ": lambda q, k, v, rate, state: by_loop(
            q, k, v, rate, state, keep=1 - rate
        ),
    },
)  # fmt: skip

# --- 4.5 ------------------------------------------------------------------------------------------


def chunk_cases(draw):
    def make(draw, sizes):
        return with_state(draw, sizes) | {"size": min(4, sizes["n"])}

    yield from in_all_shapes(draw, make, *NAMES)
    sizes = draw.sizes(*NAMES)
    for what, size in (("chunks of 1", 1), ("chunks of 5", 5), ("a chunk longer than n", 40)):
        yield Case(in_words(what, sizes), with_state(draw, sizes) | {"size": size})
    yield without_a_map(make(draw, LONG))
    even = sizes | {"n": 12}
    yield Case(in_words("chunks that fit exactly, of 4", even), make(draw, even))
    fast = make(draw, sizes) | {"rate": draw.uniform(sizes["h"], low=800, high=900)}
    yield Case(in_words("heads that forget at once (rates above 800)", sizes), fast)
    still = make(draw, sizes)
    still["rate"] = some_do_not_decay(still["rate"])
    yield Case(in_words("a head that does not decay", sizes), still)


def by_chunks(
    q, k, v, rate, state, size, *, mask=decay_mask, read_age=1, write_age=0, fade=True,
    fade_keys=True, whole=False, far=True,
):  # fmt: skip
    """The chunked form; each option is one thing that can be got wrong."""
    outputs = []
    for q_c, k_c, v_c in zip(q.split(size, 2), k.split(size, 2), v.split(size, 2), strict=True):
        m = q_c.shape[2]
        age = torch.arange(m, dtype=q.dtype)
        left = torch.exp(-rate[:, None] * (age + read_age))[..., None]
        o = (q_c @ k_c.mT * mask(rate, m)) @ v_c
        outputs.append(o + left * (q_c @ state) if far else o)
        to_end = torch.exp(-rate[:, None] * (age.flip(0) + write_age))[..., None]
        kept = torch.exp(-rate * (size if whole else m))[:, None, None] if fade else 1.0
        state = kept * state + ((to_end if fade_keys else 1.0) * k_c).mT @ v_c
    return torch.cat(outputs, dim=2), state


def chunks_update_first(q, k, v, rate, state, size):
    """Reads, with the ages of the state before, from the state after the chunk."""
    outputs = []
    for q_c, k_c, v_c in zip(q.split(size, 2), k.split(size, 2), v.split(size, 2), strict=True):
        near, _ = by_chunks(q_c, k_c, v_c, rate, 0 * state, size)
        _, state = by_chunks(q_c, k_c, v_c, rate, state, size)
        read = torch.exp(-rate[:, None] * torch.arange(1, q_c.shape[2] + 1).to(rate.dtype))
        outputs.append(near + read[..., None] * (q_c @ state))
    return torch.cat(outputs, dim=2), state


def last_chunk_not_written(q, k, v, rate, state, size):
    done = (q.shape[2] - 1) // size * size
    before = (
        by_chunks(*(x[:, :, :done] for x in (q, k, v)), rate, state, size)[1] if done else state
    )
    return by_chunks(q, k, v, rate, state, size)[0], before.clone()


def mask_pulled_apart(rate, m):
    """λ^t λ^-s: equal on paper."""
    grow = torch.exp(rate[:, None] * torch.arange(m, dtype=rate.dtype))
    return (grow[:, None, :] / grow[:, :, None]).tril()


def chunks_in_place(q, k, v, rate, state, size):
    o, new = by_chunks(q, k, v, rate, state.clone(), size)
    state.copy_(new)
    return o, state


chunks = Exercise(
    number="4.5", title="Decay in chunks", level=3, worth=5, minutes=30,
    needs="4.2 and 4.4",
    function="decay_in_chunks",
    returns={"o": "text head token value", "state": "text head key value"},
    reference=lambda q, k, v, rate, state, size: linear_attention(
        q, k, v, rate, "chunked", state=state, return_state=True, chunk_size=size
    ),
    finished=OPERATORS,
    cases=chunk_cases,
    answers={
        "chunk by chunk": by_chunks,
        "token by token, whatever the size": lambda *x: by_loop(*x[:5]),
    },
    mistakes={
        "the map of all tokens was made at once: it should be only as large as a chunk": (
            lambda *x: by_whole_map(*x[:5])
        ),
        "the state does not fade from chunk to chunk": partial(by_chunks, fade=False),
        "the state fades by a whole chunk, though the last one is shorter": partial(
            by_chunks, whole=True
        ),
        "inside a chunk the future is not cut off": partial(
            by_chunks, mask=lambda rate, m: powers(rate, ages(rate, m).abs())
        ),
        "the future gets in where the rate is 0: cut by t - s, not by r (t - s)": partial(
            by_chunks, mask=cut_by_product
        ),
        "exponents of the future overflow, and are hidden too late: their gradient is no number": (
            partial(by_chunks, mask=lambda rate, m: powers(rate, ages(rate, m)).tril())
        ),
        "inside a chunk nothing decays": partial(
            by_chunks, mask=lambda rate, m: torch.ones(m, m, dtype=rate.dtype).tril()
        ),
        "row i, counted from 0, reads the state with λ^i; it is λ^(i+1)": partial(
            by_chunks, read_age=0
        ),
        "tokens enter the state one step too old: the last one of a chunk has age 0": partial(
            by_chunks, write_age=1
        ),
        "tokens enter the state undecayed, however old": partial(by_chunks, fade_keys=False),
        "the tokens before a chunk are left out": partial(by_chunks, far=False),
        "the state takes in the chunk before it is read, so its tokens count twice": (
            chunks_update_first
        ),
        "the newest token is decayed as well": lambda q, k, v, rate, state, size: by_chunks(
            q, k, v * torch.exp(-rate)[:, None, None], rate, state, size
        ),
        "the state came back as it was given": lambda *x: (by_chunks(*x)[0], x[4].clone()),
        "the state comes back without the last chunk": last_chunk_not_written,
        "nothing decays": lambda q, k, v, rate, *others: by_chunks(q, k, v, 0 * rate, *others),
        "q and k are swapped": lambda q, k, *others: by_chunks(k, q, *others),
        "all heads decay like the first": lambda q, k, v, rate, *others: by_chunks(
            q, k, v, rate[:1].expand_as(rate), *others
        ),
        "the state that was given is left out": lambda q, k, v, rate, state, size: by_chunks(
            q, k, v, rate, 0 * state, size
        ),
        "the mask is pulled apart into λ^t and λ^-s, which overflows": partial(
            by_chunks, mask=mask_pulled_apart
        ),
        "the state that was given is written over": chunks_in_place,
    },
)  # fmt: skip

EXERCISES = [rate_of_half_life, mask, rates, loop, chunks]
QUESTIONS = [
    Question(
        number="4.6", title="Why this decay and no other", level=2, worth=3, minutes=10,
        needs="lesson 04, section 5",
    ),
]  # fmt: skip
