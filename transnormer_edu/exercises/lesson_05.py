"""Exercises of lesson 05: a turn, the ladder, LRPE, and the map it makes."""

import math
from functools import partial

import torch

from transnormer_edu.attention import linear_weights
from transnormer_edu.decay import decay_mask
from transnormer_edu.exercises.cases import in_all_shapes, in_words, some_do_not_decay
from transnormer_edu.exercises.exercise import Case, Exercise, Question
from transnormer_edu.lrpe import frequency_ladder, lrpe

# --- 5.1 ------------------------------------------------------------------------------------------


def angles(draw):
    for what in ("several angles", "other angles"):
        yield Case(f"With {what}", {"theta": draw.uniform(3, 5, low=0.001, high=2)})
    negative = torch.tensor([0.5, -0.3, 1e-8]).double()
    yield Case("With an angle that training has made negative", {"theta": negative})
    still = torch.tensor([0.2, 0.0]).double()
    yield Case("With an angle of 0, a clock that stands still", {"theta": still})
    yield Case("In float32", {"theta": draw.uniform(4, low=0.1, high=2, dtype=torch.float32)})


turn = Exercise(
    number="5.1", title="How long is a turn?", level=1, worth=1, minutes=5,
    needs="lesson 05, section 5",
    function="tokens_of_a_turn",
    returns={"tokens": ""},
    reference=lambda theta: 2 * math.pi / theta.abs(),
    cases=angles,
    answers={
        "the whole circle over the size": lambda theta: math.tau / theta.abs(),
        "the size of the quotient": lambda theta: torch.abs(torch.pi / theta * 2),
    },
    mistakes={
        "this is half a turn": lambda theta: math.pi / theta.abs(),
        "the fraction is upside down": lambda theta: theta.abs() / (2 * math.pi),
        "the angles were taken for degrees": lambda theta: 360 / theta.abs(),
        "a clock that runs backwards takes a negative time": lambda theta: 2 * math.pi / theta,
        "these are the tokens of one radian": lambda theta: 1 / theta.abs(),
        "2π was added to negative angles: that is another clock": lambda theta: (
            2 * math.pi / torch.where(theta < 0, theta + 2 * math.pi, theta)
        ),
        "turns were not divided by the angle but multiplied": lambda theta: (
            2 * math.pi * theta.abs()
        ),
    },
    gradients=False,
)  # fmt: skip

# --- 5.2 ------------------------------------------------------------------------------------------


def ladders(draw):
    some, few, more = draw.random.sample(range(3, 12), 3)
    for heads, head_dim in ((some, few), (8, 2), (2, more), (1, few), (some, 1)):
        yield Case(
            f"With {heads} heads of {head_dim} features", {"heads": heads, "head_dim": head_dim}
        )


def rungs(heads, head_dim, *, of=None, factor=-2.0, first=0, base=10000.0):
    features = heads * head_dim
    j = torch.arange(features, dtype=torch.float64) + first
    return (base ** (factor * j / (of or features))).reshape(heads, 1, head_dim)


def ladder_by_steps(heads, head_dim):
    step = 1e-8 ** (1 / (heads * head_dim))
    theta = [[step ** (h * head_dim + i) for i in range(head_dim)] for h in range(heads)]
    return torch.tensor(theta, dtype=torch.float64)[:, None]


def one_for_each_head(heads, head_dim):
    return rungs(1, head_dim).expand(heads, 1, head_dim).clone()


ladder = Exercise(
    number="5.2", title="One ladder for all heads", level=1, worth=2, minutes=8,
    needs="lesson 05, section 5",
    function="ladder",
    returns={"theta": "head 1 feature"},
    reference=lambda heads, head_dim: rungs(heads, head_dim),
    finished={"frequency_ladder"},
    cases=ladders,
    answers={"formula (5)": rungs, "step by step": ladder_by_steps},
    mistakes={
        "every head has a ladder of its own, and they are all the same": one_for_each_head,
        "the 2 in the exponent is missing": partial(rungs, factor=-1.0),
        "the exponent is not negative: the angles grow": partial(rungs, factor=2.0),
        "features are counted from 1": partial(rungs, first=1),
        "neighbouring angles went to different heads": lambda heads, head_dim: (
            rungs(1, heads * head_dim).reshape(head_dim, heads).T[:, None].clone()
        ),
        "the ladder begins with the last head": lambda *sizes: rungs(*sizes).flip(0),
        "it was divided by the features of one head": lambda heads, head_dim: rungs(
            heads, head_dim, of=head_dim
        ),
        "this is a power of e, not of 10000": partial(rungs, base=math.e),
        "float32 was computed, not float64": lambda *sizes: frequency_ladder(*sizes),
    },
    gradients=False,
)  # fmt: skip

# --- 5.3 ------------------------------------------------------------------------------------------

NAMES = ("b", "h", "n", "d")


def features(draw, sizes):
    b, h, n, d = (sizes[name] for name in NAMES)
    theta = draw.uniform(h, 1, d, low=0.05, high=2)
    return {"x": draw.normal(b, h, n, d), "theta": theta, "position": torch.arange(n) + 5}


def turned_cases(draw):
    yield from in_all_shapes(draw, features, *NAMES)
    sizes = draw.sizes(*NAMES)
    later = features(draw, sizes)
    yield Case(
        in_words("positions from 90 on", sizes), later | {"position": later["position"] + 85}
    )
    yield Case(
        in_words("positions from 3000 on", sizes), later | {"position": later["position"] + 2995}
    )
    signs = later["theta"] * torch.tensor([-1.0, 1.0]).double().repeat(sizes["d"])[: sizes["d"]]
    yield Case(in_words("angles that training has made negative", sizes), later | {"theta": signs})
    gaps = torch.randperm(40, generator=draw.generator)[: sizes["n"]]
    yield Case(in_words("positions in any order", sizes), later | {"position": gaps})
    half = {name: x.bfloat16() if name != "position" else x + 250 for name, x in later.items()}
    yield Case(in_words("bfloat16, at positions around 257", sizes), half)
    half = {name: x.half() if name != "position" else x + 2035 for name, x in later.items()}
    yield Case(in_words("float16, at positions from 2040 on", sizes), half)


def parts(x, theta, position):
    wide = torch.promote_types(x.dtype, torch.float32)
    angle = theta.to(wide) * position[:, None].to(wide)
    return x * angle.cos(), x * angle.sin()


def turned(x, theta, position, *, join=lambda c, s: torch.cat([c, s], -1)):
    return join(*parts(x, theta, position)).to(x.dtype)


def turned_as_complex(x, theta, position):
    wide = torch.promote_types(x.dtype, torch.float32)
    angle = theta.to(wide) * position[:, None].to(wide)
    arrow = x.to(wide) * torch.exp(torch.complex(torch.zeros_like(angle), angle))
    return torch.cat([arrow.real, arrow.imag], -1).to(x.dtype)


def turned_token_by_token(x, theta, position):
    rows = []
    for i, t in enumerate(position.tolist()):
        angle = theta[:, 0].to(torch.promote_types(x.dtype, torch.float32)) * t
        rows.append(torch.cat([x[:, :, i] * angle.cos(), x[:, :, i] * angle.sin()], -1))
    return torch.stack(rows, 2).to(x.dtype)


def rounded_positions(x, theta, position):
    angle = theta * position[:, None].to(x.dtype)
    return torch.cat([x * angle.cos(), x * angle.sin()], -1)


lrpe_exercise = Exercise(
    number="5.3", title="LRPE", level=2, worth=3, minutes=15,
    needs="lesson 05, sections 3 and 7",
    function="lrpe_of",
    returns={"y": "text head token feature"},
    reference=lrpe,
    finished={"lrpe", "LRPE"},
    cases=turned_cases,
    answers={"complex numbers": turned_as_complex, "token by token": turned_token_by_token},
    mistakes={
        "the sines come first": partial(turned, join=lambda c, s: torch.cat([s, c], -1)),
        "cosine and sine stand side by side: all cosines come first": partial(
            turned, join=lambda c, s: torch.stack([c, s], -1).flatten(-2)
        ),
        "the sines have the wrong sign": partial(
            turned, join=lambda c, s: torch.cat([c, -s], -1)
        ),
        "only the cosines are there": partial(turned, join=lambda c, s: c),
        "cosine and sine were added, not put side by side": partial(
            turned, join=lambda c, s: c + s
        ),
        "the positions that were given are not used: it counts from 0": lambda x, theta, position: (
            turned(x, theta, torch.arange(x.shape[2]))
        ),
        "counting goes on from the first position, though the others were given too": (
            lambda x, theta, position: turned(x, theta, position[0] + torch.arange(x.shape[2]))
        ),
        "all heads turn like the first": lambda x, theta, position: turned(
            x, theta[:1].expand_as(theta), position
        ),
        "bfloat16 cannot tell position 257 from 256: compute angles in float32": rounded_positions,
        "float16 cannot tell position 2049 from 2048: compute angles in float32 or wider": (
            lambda x, theta, position: turned(x, theta, position.half())
        ),
        "angles lost their sign: training may make one negative": lambda x, theta, position: (
            turned(x, theta.abs(), position)
        ),
        "positions are counted from 1 more": lambda x, theta, position: turned(
            x, theta, position + 1
        ),
    },
)  # fmt: skip

# --- 5.4 ------------------------------------------------------------------------------------------


def turning_heads(draw, sizes):
    given = features(draw, sizes)
    return {
        "q": given["x"],
        "k": draw.normal(*given["x"].shape),
        "theta": given["theta"],
        "rate": draw.rates(sizes["h"]),
    }


def turning_and_fading(draw):
    yield from in_all_shapes(draw, turning_heads, *NAMES)
    sizes = draw.sizes(*NAMES)
    still = turning_heads(draw, sizes)
    still["rate"] = some_do_not_decay(still["rate"])
    yield Case(in_words("a head that does not decay", sizes), still)
    fast = turning_heads(draw, sizes) | {"rate": draw.uniform(sizes["h"], low=75, high=95)}
    yield Case(in_words("heads that forget at once (rates above 70)", sizes), fast)


def distances(q):
    position = torch.arange(q.shape[2])
    return (position[:, None] - position).to(q.dtype)


def cut_by_product(rate, n):
    x = rate[:, None, None] * distances(torch.zeros(1, 1, n, dtype=rate.dtype))
    return torch.exp(-x.clamp(min=0)) * (x >= 0)


def hidden_too_late(rate, n):
    age = distances(torch.zeros(1, 1, n, dtype=rate.dtype))
    return torch.exp(-rate[:, None, None] * age).tril()


def powers_of_the_rate(rate, n):
    age = distances(torch.zeros(1, 1, n, dtype=rate.dtype))
    return (rate[:, None, None] ** age.clamp(min=0)).tril()


def map_by_distance(q, k, theta, rate, *, wave=torch.cos, mask=decay_mask):
    product = q[:, :, :, None] * k[:, :, None]  # text head reader read-token feature
    angle = theta[:, :, None] * distances(q)[..., None]
    return (product * wave(angle)).sum(-1) * mask(rate, q.shape[2])


def map_by_turning(q, k, theta, rate):
    t = torch.arange(q.shape[2])
    return linear_weights(lrpe(q, theta, t), lrpe(k, theta, t), rate)


def map_pair_by_pair(q, k, theta, rate):
    rows = torch.zeros(*q.shape[:3], q.shape[2], dtype=q.dtype)
    for age in range(q.shape[2]):
        wave = torch.exp(-rate * age)[:, None] * torch.cos(theta[:, 0] * age)  # (h, d)
        n = q.shape[2] - age
        score = (q[:, :, age:] * k[:, :, :n] * wave[:, None]).sum(-1)
        rows = rows + torch.diag_embed(score, -age)
    return rows


lrpe_map = Exercise(
    number="5.4", title="Turn and fade", level=3, worth=4, minutes=20,
    needs="lesson 05, section 4, and lesson 04",
    function="map_of_lrpe_d",
    returns={"A": "text head reader read-token"},
    reference=map_by_turning,
    cases=turning_and_fading,
    answers={"from the distances": map_by_distance, "diagonal by diagonal": map_pair_by_pair},
    mistakes={
        "nothing fades": lambda q, k, theta, rate: map_by_distance(q, k, theta, 0 * rate),
        "nothing turns": lambda q, k, theta, rate: map_by_distance(q, k, 0 * theta, rate),
        "the sine was taken, not the cosine": partial(map_by_distance, wave=torch.sin),
        "the future is not hidden": partial(
            map_by_distance, mask=lambda rate, n: torch.exp(
                -rate[:, None, None] * distances(torch.zeros(1, 1, n, dtype=rate.dtype)).abs()
            )
        ),
        "the future gets in where the rate is 0: cut by t - s, not by r (t - s)": partial(
            map_by_distance, mask=cut_by_product
        ),
        "exponents of the future overflow, and are hidden too late: their gradient is no number": (
            partial(map_by_distance, mask=hidden_too_late)
        ),
        "a rate of 0 was made larger: such a head forgets nothing": (
            lambda q, k, theta, rate: map_by_distance(q, k, theta, rate.clamp(min=1e-3))
        ),
        "the cosine was taken of the angle alone and raised to the distance": (
            lambda q, k, theta, rate: (
                (q[:, :, :, None] * k[:, :, None]
                 * theta.cos()[:, :, None] ** distances(q).clamp(min=0)[..., None]).sum(-1)
                * decay_mask(rate, q.shape[2])
            )
        ),
        "one cosine was taken for all features: of their mean angle": (
            lambda q, k, theta, rate: map_by_distance(
                q, k, theta.mean(-1, keepdim=True).expand_as(theta), rate
            )
        ),
        "all heads turn like the first": lambda q, k, theta, rate: map_by_distance(
            q, k, theta[:1].expand_as(theta), rate
        ),
        "all heads fade like the first": lambda q, k, theta, rate: map_by_distance(
            q, k, theta, rate[:1].expand_as(rate)
        ),
        "q and k are swapped": lambda q, k, theta, rate: map_by_distance(k, q, theta, rate),
        "the newest token is decayed as well": lambda q, k, theta, rate: (
            torch.exp(-rate)[:, None, None] * map_by_distance(q, k, theta, rate)
        ),
        "the rate was taken for λ": partial(map_by_distance, mask=powers_of_the_rate),
        "only the queries are turned": lambda q, k, theta, rate: linear_weights(
            lrpe(q, theta, torch.arange(q.shape[2])), lrpe(k, 0 * theta, torch.arange(q.shape[2])),
            rate,
        ),
        "the positions were added where they are subtracted": lambda q, k, theta, rate: (
            linear_weights(
                lrpe(q, theta, torch.arange(q.shape[2])),
                lrpe(k, -theta, torch.arange(q.shape[2])), rate,
            )
        ),
        "this is half the angle, or half the distance": lambda q, k, theta, rate: map_by_distance(
            q, k, theta / 2, rate
        ),
        "the scores are divided by √d, which linear attention does not do": (
            lambda q, k, theta, rate: (
                map_by_distance(q, k, theta, rate) / math.sqrt(q.shape[-1])
            )
        ),
        "the rate was added to the angle, not used to fade": lambda q, k, theta, rate: (
            map_by_distance(q, k, theta + rate[:, None, None], 0 * rate)
        ),
    },
)  # fmt: skip

EXERCISES = [turn, ladder, lrpe_exercise, lrpe_map]
QUESTIONS = [
    Question(
        number="5.5", title="Why the first layer only", level=2, worth=3, minutes=10,
        needs="lesson 05, sections 3 and 5",
    ),
]  # fmt: skip
