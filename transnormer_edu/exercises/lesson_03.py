"""Exercises of lesson 03: mass, the score that wins, mass by age, and local mass."""

import math
from functools import partial

import torch

from transnormer_edu.dilution import attention_mass, local_mass, mass_by_age
from transnormer_edu.exercises.cases import in_all_shapes, in_words
from transnormer_edu.exercises.exercise import Case, Exercise, Question

NAMES = ("b", "h", "n")

# --- 3.1 ------------------------------------------------------------------------------------------


def signed_maps(draw, sizes):
    """Causal, with weights of both signs; no row is all 0."""
    b, h, n = sizes.values()
    return {"A": draw.normal(b, h, n, n).tril()}


def maps_of_every_size(draw):
    yield from in_all_shapes(draw, signed_maps, *NAMES)
    sizes = draw.sizes(*NAMES)
    yield Case(in_words("weights around 10⁻⁷", sizes), {"A": 1e-7 * signed_maps(draw, sizes)["A"]})


def over(A, total):
    return A.abs() / total


mass = Exercise(
    number="3.1", title="Mass", level=1, worth=1, minutes=6,
    needs="lesson 03, sections 1 and 2",
    function="mass_of",
    returns={"p": "text head reader read-token"},
    reference=attention_mass,
    finished={"attention_mass"},
    cases=maps_of_every_size,
    answers={
        "size over sum": lambda A: over(A, A.abs().sum(-1, keepdim=True)),
        "row by row": lambda A: torch.stack(
            [row.abs() / row.norm(p=1, dim=-1, keepdim=True) for row in A.unbind(2)], dim=2
        ),
    },
    mistakes={
        "negative weights lower the sum: take their size there too": lambda A: over(
            A, A.sum(-1, keepdim=True)
        ),
        "negative weights became negative mass": lambda A: A / A.abs().sum(-1, keepdim=True),
        "the weights were only divided by their sum, with their signs": lambda A: (
            A / A.sum(-1, keepdim=True)
        ),
        "negative weights were dropped": lambda A: (
            A.clamp(min=0) / A.abs().sum(-1, keepdim=True)
        ),
        "the columns sum to 1, not the rows": lambda A: over(A, A.abs().sum(-2, keepdim=True)),
        "the whole map sums to 1, not each row": lambda A: over(
            A, A.abs().sum((-1, -2), keepdim=True)
        ),
        "each row was divided by its largest weight": lambda A: over(
            A, A.abs().amax(-1, keepdim=True)
        ),
        "the weights were squared": lambda A: A**2 / (A**2).sum(-1, keepdim=True),
        "this is a softmax of the weights": lambda A: A.softmax(-1),
    },
)  # fmt: skip

# --- 3.2 ------------------------------------------------------------------------------------------


def rows_to_win(draw):
    for n, others in ((1025, 1.0), (50, 0.3), (7, 2.5)):
        mass = draw.random.choice((0.1, 0.3, 0.6, 0.9))
        yield Case(
            f"With n={n}, mass={mass}, others={others}", {"n": n, "mass": mass, "others": others}
        )
    yield Case("With n=2, mass=0.5, others=0.7", {"n": 2, "mass": 0.5, "others": 0.7})
    little = {"n": 5, "mass": 0.02, "others": 0.4}
    yield Case("With n=5, mass=0.02, others=0.4, where a negative score is enough", little)
    yield Case("With n=6, mass=0.6, others=1000", {"n": 6, "mass": 0.6, "others": 1000.0})


def scores_to_win(n, mass, others, *, rivals=-1, odds=lambda m: m / (1 - m), log=math.log):
    ratio = odds(mass) * (n + rivals)
    return others + log(ratio), others * ratio


score_that_wins = Exercise(
    number="3.2", title="The score that wins", level=2, worth=2, minutes=10,
    needs="lesson 03, section 1",
    function="score_for_mass",
    returns={"softmax": "", "linear": ""},
    reference=scores_to_win,
    cases=rows_to_win,
    answers={
        "from the odds": lambda n, mass, others: (
            others - math.log((1 - mass) / (mass * (n - 1))),
            mass * (n - 1) * others / (1 - mass),
        ),
        "from the mass of the others": lambda n, mass, others: (
            math.log(mass) - math.log((1 - mass) / (n - 1)) + others,
            mass / ((1 - mass) / ((n - 1) * others)),
        ),
    },
    mistakes={
        "the token itself was counted among the others": partial(scores_to_win, rivals=0),
        "mass was taken where mass / (1 - mass) belongs": partial(scores_to_win, odds=lambda m: m),
        "the odds are upside down": partial(scores_to_win, odds=lambda m: (1 - m) / m),
        "the mass is left out, as if it were one half": partial(scores_to_win, odds=lambda m: 1.0),
        "the logarithm is to base 2": partial(scores_to_win, log=math.log2),
        "the score of the others is left out": lambda n, mass, others: (
            scores_to_win(n, mass, 0)[0], scores_to_win(n, mass, 1)[1]
        ),
        "the score of the others was multiplied in where it is added": lambda n, mass, others: (
            others * scores_to_win(n, mass, 0)[0], scores_to_win(n, mass, others)[1]
        ),
        "the score was not allowed to be negative": lambda *row: (
            max(scores_to_win(*row)[0], 0.0), scores_to_win(*row)[1]
        ),
        "softmax and linear are swapped": lambda *row: scores_to_win(*row)[::-1],
    },
    gradients=False,
)  # fmt: skip

# --- 3.3 ------------------------------------------------------------------------------------------


def maps_of_mass(draw, sizes):
    return {"p": attention_mass(signed_maps(draw, sizes)["A"])}


def maps_by_age(draw):
    yield from in_all_shapes(draw, maps_of_mass, *NAMES)
    sizes = draw.sizes(*NAMES)
    p = maps_of_mass(draw, sizes)["p"]
    p.diagonal(dim1=-2, dim2=-1)[..., 2:] = 0
    yield Case(in_words("tokens that give themselves nothing", sizes), {"p": attention_mass(p)})


def by_shifting_rows(p):
    rows = [p[:, :, t].flip(-1).roll(t + 1, -1) for t in range(p.shape[-1])]
    return torch.stack(rows, dim=2)


def by_filling_in(p):
    result = torch.zeros_like(p)
    for t in range(p.shape[-1]):
        for age in range(t + 1):
            result[..., t, age] = p[..., t, t - age]
    return result


def first_mass_first(p):
    """Finds the end of each row by the zeros that follow."""
    result = torch.zeros_like(p)
    for place in torch.cartesian_prod(*(torch.arange(size) for size in p.shape[:3])).tolist():
        row = p[tuple(place)]
        past = row[: int(row.nonzero().max()) + 1]
        result[tuple(place)][: len(past)] = past.flip(0)
    return result


def next_to_newest_first(p):
    return by_filling_in(p).roll(-1, -1)


by_age = Exercise(
    number="3.3", title="Mass by age", level=2, worth=3, minutes=15,
    needs="lesson 03, section 3",
    function="by_age",
    returns={"m": "text head reader age"},
    reference=mass_by_age,
    finished={"mass_by_age"},
    cases=maps_by_age,
    answers={"each row shifted": by_shifting_rows, "cell by cell": by_filling_in},
    mistakes={
        "the columns still are tokens, not ages": lambda p: p,
        "the oldest comes first": lambda p: by_filling_in(p).flip(-1),
        "each row was turned round as a whole: the ages are counted from the last column": (
            lambda p: p.flip(-1)
        ),
        "age 0, the token itself, is missing": next_to_newest_first,
        "zeros were taken for the future, and the first token that has mass for age 0": (
            first_mass_first
        ),
        "the rows are sorted by mass, not by age": lambda p: p.sort(-1, descending=True).values,
        "readers and read tokens are swapped": lambda p: by_filling_in(p.mT.tril() + p.mT.triu(1)),
        "ages were summed up: this is the mass within each age": lambda p: (
            by_filling_in(p).cumsum(-1)
        ),
    },
    gradients=False,
)  # fmt: skip

# --- 3.4 ------------------------------------------------------------------------------------------


def local_cases(draw):
    def make(draw, sizes, share=0.37):
        return maps_of_mass(draw, sizes) | {"share": share}

    yield from in_all_shapes(draw, make, *NAMES)
    sizes = draw.sizes(*NAMES)
    for share in (0.05, 0.5, 0.9, 0.0, 1.0):
        yield Case(in_words(f"share {share}", sizes), make(draw, sizes, share))


def row_by_row_local(p, share, *, count=lambda size: size, seen=1, of=None, oldest=False, skip=0):
    """Adds up whole tokens and a fraction; each option is one thing that can be got wrong."""
    rows = []
    for t in range(p.shape[-1]):
        size = count(share * ((of or p.shape[-1]) if of else t + seen))
        newest_first = p[:, :, t, : t + 1] if oldest else p[:, :, t, : t + 1].flip(-1)
        newest_first = newest_first[..., skip:]
        taken = (size - torch.arange(newest_first.shape[-1], dtype=p.dtype)).clamp(0, 1)
        rows.append((newest_first * taken).sum(-1))
    return torch.stack(rows).mean(0)


def by_interpolation(p, share):
    """The running sum of a row, read between two tokens."""
    n = p.shape[-1]
    within = torch.nn.functional.pad(by_shifting_rows(p).cumsum(-1), (1, 1))
    within[..., -1] = within[..., -2]
    size = share * torch.arange(1, n + 1, dtype=p.dtype)
    whole = size.long()
    t = torch.arange(n)
    low, high = within[..., t, whole], within[..., t, whole + 1]
    return (low + (size - whole) * (high - low)).mean(-1)


def over_all_tokens(p, share):
    return row_by_row_local(p, share, of=p.shape[-1])


local = Exercise(
    number="3.4", title="Local mass", level=3, worth=4, minutes=25,
    needs="lesson 03, section 2, and 3.3",
    function="local_mass_of",
    returns={"local mass": "text head"},
    reference=lambda p, share: local_mass(p, torch.tensor([share], dtype=p.dtype))[..., 0],
    finished={"local_mass"},
    cases=local_cases,
    answers={"row by row": row_by_row_local, "between two sums": by_interpolation},
    mistakes={
        "the fraction of a token is dropped": partial(row_by_row_local, count=math.floor),
        "the fraction of a token counts as a whole one": partial(row_by_row_local, count=math.ceil),
        "the number of tokens is rounded": partial(row_by_row_local, count=round),
        "the share is of all n tokens, not of those that a row sees": over_all_tokens,
        "row t, counted from 0, sees t + 1 tokens, not t": partial(row_by_row_local, seen=0),
        "the farthest tokens were counted, not the nearest": partial(
            row_by_row_local, oldest=True
        ),
        "the token itself is left out: it is the nearest": partial(row_by_row_local, skip=1),
        "the rows are summed, not averaged": lambda p, share: (
            row_by_row_local(p, share) * p.shape[-1]
        ),
        "only the last row was measured": lambda p, share: (
            p[:, :, -1].flip(-1)
            * (share * p.shape[-1] - torch.arange(p.shape[-1], dtype=p.dtype)).clamp(0, 1)
        ).sum(-1),
        "this is the share itself": lambda p, share: p.new_full(p.shape[:2], share),
    },
    gradients=False,
)  # fmt: skip

EXERCISES = [mass, score_that_wins, by_age, local]
QUESTIONS = [
    Question(
        number="3.5", title="Is a flat map a bad map?", level=2, worth=3, minutes=10,
        needs="lesson 03, sections 3 and 4",
    ),
]  # fmt: skip
