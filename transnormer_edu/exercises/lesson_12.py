"""Exercises of lesson 12: the token at which a model breaks, pieces, the choice, and padding."""

import math
from functools import partial

import torch

from transnormer_edu.attention import linear_attention
from transnormer_edu.decay import decay_mask
from transnormer_edu.exercises.cases import in_all_shapes, in_words, operands, some_do_not_decay
from transnormer_edu.exercises.exercise import Case, Exercise, Question
from transnormer_edu.lrpe import lrpe

# --- 12.1 -----------------------------------------------------------------------------------------

LARGEST = {"float16": 65504.0, "float32": 3.4028234663852886e38, "float64": 1.7976931348623157e308}


def models(draw):
    for dtype, largest in LARGEST.items():
        sizes = draw.sizes("layers", "h")
        rates = draw.uniform(*sizes.values(), low=0.02, high=0.9)
        yield Case(in_words(f"numbers of {dtype}", sizes), {"rates": rates, "largest": largest})
    slow_first = draw.uniform(3, 4, low=0.02, high=0.2)
    slow_first[2, 1] = draw.random.uniform(0.5, 0.9)
    yield Case("With the fastest head in the last layer", {"rates": slow_first, "largest": 65504.0})
    fast = draw.uniform(2, 3, low=95, high=120)
    yield Case("With heads that forget at once", {"rates": fast, "largest": LARGEST["float32"]})
    still = {"rates": torch.zeros(2, 3, dtype=torch.float64), "largest": 65504.0}
    yield Case("With a model that forgets nothing", still)
    beside = {"rates": torch.tensor([[0.0, 0.5], [0.1, 0.3]]).double(), "largest": 65504.0}
    yield Case("With a head that forgets nothing beside others", beside)
    yield Case("With one head", {"rates": draw.uniform(1, 1, low=0.1, high=0.5), "largest": 1e10})


def breaks(rates, largest, *, fastest=torch.amax, log=math.log, after=1, never=math.inf):
    rate = float(fastest(rates))
    return math.floor(log(largest) / rate) + after if rate else never


def breaks_by_trying(rates, largest):
    if not rates.any():
        return math.inf
    t = 1
    while (rates * t <= math.log(largest)).all():
        t += 1
    return t


def breaks_first_of_all(rates, largest):
    """Each head's own end, and the earliest of them."""
    ends = [math.log(largest) // r + 1 if r > 0 else math.inf for r in rates.flatten().tolist()]
    return min(ends)


breaking = Exercise(
    number="12.1", title="The token at which it breaks", level=1, worth=2, minutes=8,
    needs="lesson 12, section 3",
    function="breaks_at",
    returns={"t": ""},
    reference=breaks,
    cases=models,
    answers={"token by token": breaks_by_trying, "head by head": breaks_first_of_all},
    mistakes={
        "the slowest head was taken: one head is enough, and the fastest breaks first": partial(
            breaks, fastest=torch.amin
        ),
        "the rates were averaged: one head is enough": partial(breaks, fastest=torch.mean),
        "the rates of all heads were added": partial(breaks, fastest=torch.sum),
        "only the first layer was looked at": lambda rates, largest: breaks(rates[:1], largest),
        "this is the last token that still works": partial(breaks, after=0),
        "this is a token later: count from 1": partial(breaks, after=2),
        "the logarithm is to base 10": partial(breaks, log=math.log10),
        "the logarithm is to base 2": partial(breaks, log=math.log2),
        "the logarithm is missing: e^(rt) has to stay below the largest number": partial(
            breaks, log=lambda x: x
        ),
        "the rate was taken for λ": lambda rates, largest: breaks(-rates.log(), largest),
        "where nothing decays nothing grows: such a model never breaks": lambda rates, largest: (
            math.floor(math.log(largest) / rates.max().item()) + 1
        ),
    },
    gradients=False,
)  # fmt: skip

# --- 12.2 -----------------------------------------------------------------------------------------

PIECES = ("b", "h", "n", "d", "dv")


def pieces(draw):
    def make(draw, sizes):
        b, h, n, d, dv = (sizes[name] for name in PIECES)
        return operands(draw, b, h, n, d, dv) | {
            "theta": draw.uniform(h, 1, d, low=0.05, high=1.5),
            "rate": draw.rates(h),
            "state": draw.normal(b, h, 2 * d, dv),
            "seen": draw.random.randint(7, 90),
        }

    yield from in_all_shapes(draw, make, *PIECES)
    sizes = draw.sizes(*PIECES)
    first = make(draw, sizes)
    first |= {"state": torch.zeros_like(first["state"]), "seen": 0}
    yield Case(in_words("the first piece of a text", sizes), first)
    late = make(draw, sizes) | {"seen": 5001}
    yield Case(in_words("a piece that comes after 5001 tokens", sizes), late)
    still = make(draw, sizes)
    still["rate"] = some_do_not_decay(still["rate"])
    yield Case(in_words("a head that does not decay", sizes), still)
    fast = make(draw, sizes) | {"rate": draw.uniform(sizes["h"], low=800, high=900)}
    yield Case(in_words("heads that forget at once (rates above 800)", sizes), fast)


def turned(x, theta, position):
    return lrpe(x, theta, position)


def piece(
    q, k, v, theta, rate, state, seen, *, turn_q=turned, turn_k=turned, start=0, grows=None,
    back=lambda new, old: new,
):  # fmt: skip
    """Equation (1) for a layer with LRPE; each option is one thing that can be got wrong."""
    n = q.shape[2]
    position = torch.arange(n) + (seen + start if start is not None else 0)
    q, k = turn_q(q, theta, position), turn_k(k, theta, position)
    o, new = linear_attention(q, k, v, rate, "recurrent", state=state, return_state=True)
    return o, back(new, state), seen + (n if grows is None else grows)


def piece_by_map(q, k, v, theta, rate, state, seen, *, read=1):
    n = q.shape[2]
    position = seen + torch.arange(n)
    q, k = lrpe(q, theta, position), lrpe(k, theta, position)
    age = torch.arange(n + 1, dtype=q.dtype)
    left = torch.exp(-rate[:, None] * age)[..., None]
    since = {1: left[:, 1:], 0: left[:, :-1], None: 1.0}[read]
    o = (q @ k.mT * decay_mask(rate, n)) @ v + since * (q @ state)
    return o, left[:, -1:] * state + (left[:, :-1].flip(1) * k).mT @ v, seen + n


def piece_by_halves(q, k, v, theta, rate, state, seen):
    """Cosines and sines as two states that know nothing of each other."""
    position = (seen + torch.arange(q.shape[2])).to(q.dtype)
    angle = theta * position[:, None]
    outputs, states = [], []
    for wave, S in zip((angle.cos(), angle.sin()), state.chunk(2, dim=2), strict=True):
        o, S = linear_attention(q * wave, k * wave, v, rate, state=S, return_state=True)
        outputs.append(o)
        states.append(S)
    return sum(outputs), torch.cat(states, dim=2), seen + q.shape[2]


def sines_first(x, theta, position):
    return lrpe(x, theta, position).roll(x.shape[-1], -1)


def written_over(q, k, v, theta, rate, state, seen):
    o, new, seen = piece(q, k, v, theta, rate, state, seen)
    return o, state.copy_(new), seen


go_on = Exercise(
    number="12.2", title="The next piece", level=2, worth=3, minutes=15,
    needs="lesson 12, sections 1 and 2, and lesson 05",
    function="next_piece",
    returns={"o": "text head token value", "state": "text head key value", "seen": ""},
    reference=piece,
    cases=pieces,
    answers={"with a map": piece_by_map, "cosines and sines apart": piece_by_halves},
    mistakes={
        "it began to count at position 0 again, as if nothing had been read": partial(
            piece, start=None
        ),
        "the positions are one too high: the first token of all stands at 0": partial(
            piece, start=1
        ),
        "`seen` grew by 1, though a piece may have many tokens": partial(piece, grows=1),
        "`seen` came back as it was given": partial(piece, grows=0),
        "the queries are not turned": partial(
            piece, turn_q=lambda q, theta, position: lrpe(q, 0 * theta, position)
        ),
        "the keys are not turned": partial(
            piece, turn_k=lambda k, theta, position: lrpe(k, 0 * theta, position)
        ),
        "the sines come first, and the state has the cosines there": partial(
            piece, turn_q=sines_first, turn_k=sines_first
        ),
        "the state that was given is left out": lambda q, k, v, theta, rate, state, seen: piece(
            q, k, v, theta, rate, 0 * state, seen
        ),
        "the state that was given does not fade while the piece is read": partial(
            piece_by_map, read=None
        ),
        "token t, counted from 1, reads the state with λ^(t-1); it is λ^t": partial(
            piece_by_map, read=0
        ),
        "the state came back as it was given": partial(piece, back=lambda new, old: old.clone()),
        "nothing decays": lambda q, k, v, theta, rate, *others: piece(
            q, k, v, theta, 0 * rate, *others
        ),
        "the state that was given is written over": written_over,
        "q and k are swapped": lambda q, k, *others: piece(k, q, *others),
    },
)  # fmt: skip

# --- 12.3 -----------------------------------------------------------------------------------------


def tables_of_logits(draw):
    def make(b, vocab, temperature, top_k, top_p, scale=1.5, dtype=torch.float64):
        logits = (scale * draw.normal(b, vocab)).to(dtype)
        return {"logits": logits, "temperature": temperature, "top_k": top_k, "top_p": top_p}

    def some():
        return draw.random.uniform(0.5, 0.9)

    yield Case("With all three", make(3, 11, some(), 6, some()))
    yield Case("With other numbers", make(3, 11, some(), 6, some()))
    yield Case("With top-k alone", make(4, 9, 1.0, 3, 1.0))
    yield Case("With top-p alone", make(4, 9, 1.0, 9, some()))
    yield Case("With a high temperature alone", make(2, 7, 1.9, 7, 1.0))
    flat = make(3, 12, 1.0, 6, 0.7, scale=0.3)
    yield Case("With shares nearly equal, of which top-k takes half away", flat)
    yield Case("With a share that the likeliest token has alone", make(2, 7, 1.0, 7, 0.05))
    yield Case("With top-k 1", make(3, 5, 1.0, 1, some()))
    yield Case("With one text", make(1, 8, some(), 5, some()))
    yield Case("With a vocabulary of one token", make(2, 1, some(), 1, some()))
    yield Case("With logits in the thousands", make(3, 6, 0.7, 4, 0.9, scale=2000))
    yield Case("In float32", make(3, 10, some(), 6, some(), dtype=torch.float32))


def choice(
    logits, temperature, top_k, top_p, *, hot=lambda z, T: (z / T).softmax(-1), between=True,
    reach=0, last=True, order=True, keep_k=lambda ranked, k: ranked < k, rows=lambda kept: kept,
):  # fmt: skip
    """Shares in the order of the vocabulary; each option is one thing that can be got wrong."""
    share, token = hot(logits, temperature).sort(dim=-1, descending=True)
    rank = torch.arange(share.shape[-1]).expand_as(share)
    share = share * keep_k(rank, top_k)
    if between:
        share = share / share.sum(-1, keepdim=True)
    before = share.cumsum(-1) - share
    kept = (before + share if reach < 0 else before) < top_p
    if reach > 0:
        kept = torch.cat([torch.ones_like(kept[..., :1]), kept[..., :-1]], -1)
    share = share * rows(kept)
    if last:
        share = share / share.sum(-1, keepdim=True)
    return torch.zeros_like(share).scatter(-1, token, share) if order else share


def choice_token_by_token(logits, temperature, top_k, top_p):
    rows = []
    for z in logits:
        likeliest = sorted(range(len(z)), key=lambda i: -z[i])[:top_k]
        weight = torch.exp((z[likeliest] - z.max()) / temperature)
        share, kept, held = weight / weight.sum(), [], 0.0
        for i, s in zip(likeliest, share.tolist(), strict=True):
            if held < top_p:
                kept.append(i)
            held += s
        row = torch.full_like(z, -math.inf)
        row[kept] = z[kept] / temperature
        rows.append(row.softmax(-1))
    return torch.stack(rows)


def choice_by_removing(logits, temperature, top_k, top_p):
    """Takes the least likely away, one by one, as long as it may."""
    left = logits / temperature
    for row in left:
        while (row > -math.inf).sum() > top_k:
            row[row.masked_fill(row == -math.inf, math.inf).argmin()] = -math.inf
        share = row.softmax(-1)
        for i in share.argsort():
            if share[share > share[i]].sum() >= top_p:
                row[i] = -math.inf
    return left.softmax(-1)


def exponentials_first(z, T):
    return torch.exp(z / T) / torch.exp(z / T).sum(-1, keepdim=True)


def warmed_at_the_end(logits, temperature, top_k, top_p):
    share = choice(logits, 1.0, top_k, top_p) ** (1 / temperature)
    return share / share.sum(-1, keepdim=True)


choosing = Exercise(
    number="12.3", title="Which tokens may come", level=2, worth=3, minutes=20,
    needs="lesson 12, section 6",
    function="shares_of",
    returns={"share": "text vocabulary"},
    reference=choice,
    cases=tables_of_logits,
    answers={
        "token by token": choice_token_by_token,
        "the least likely go, one by one": choice_by_removing,
    },
    mistakes={
        "the shares came back in order of size, not in the order of the vocabulary": partial(
            choice, order=False
        ),
        "the logits were multiplied by the temperature, not divided": partial(
            choice, hot=lambda z, T: (z * T).softmax(-1)
        ),
        "the temperature has no effect: it belongs to the logits, before the softmax": partial(
            choice, hot=lambda z, T: z.softmax(-1)
        ),
        "the temperature came last: it changes what top-p keeps": warmed_at_the_end,
        "what is left was not divided by its sum": partial(choice, last=False),
        "top-p measured the shares before top-k: divide by their sum in between": partial(
            choice, between=False
        ),
        "top-p keeps a token too few: the one that reaches p belongs to them": partial(
            choice, reach=-1
        ),
        "top-p keeps a token too many: the one that reaches p is the last": partial(
            choice, reach=1
        ),
        "top-k is left out": partial(choice, keep_k=lambda rank, k: rank >= 0),
        "top-k keeps a token too many": partial(choice, keep_k=lambda rank, k: rank <= k),
        "top-k keeps the least likely": partial(
            choice, keep_k=lambda rank, k: rank >= rank.shape[-1] - k
        ),
        "top-p is left out": lambda z, T, k, p: choice(z, T, k, 2.0),
        "all texts were cut like the first": partial(
            choice, rows=lambda kept: kept[:1].expand_as(kept)
        ),
        "large logits overflow: subtract the largest first, or use softmax": partial(
            choice, hot=exponentials_first
        ),
    },
    gradients=False,
)  # fmt: skip

# --- 12.4 -----------------------------------------------------------------------------------------

NAMES = ("b", "h", "n", "dk", "dv")


def padded(draw):
    def make(draw, sizes, padding=None):
        b, h, n, dk, dv = (sizes[name] for name in NAMES)
        first = torch.tensor([draw.random.randint(0, n) for _ in range(b)])
        first = first if padding is None else torch.tensor(padding(b, n))
        return operands(draw, **sizes) | {
            "rate": draw.rates(h),
            "real": torch.arange(n) >= first[:, None],
            "state": draw.normal(b, h, dk, dv),
        }

    yield from in_all_shapes(draw, make, *NAMES)
    sizes = draw.sizes(*NAMES)
    for what, padding in (
        ("no padding", lambda b, n: [0] * b),
        ("padding and nothing else", lambda b, n: [n] * b),
        ("padding in the first text alone", lambda b, n: [n - 3] + [0] * (b - 1)),
        ("the first text whole", lambda b, n: [0] + [5] * (b - 1)),
    ):
        yield Case(in_words(what, sizes), make(draw, sizes, padding))
    still = make(draw, sizes)
    still["rate"] = some_do_not_decay(still["rate"])
    yield Case(in_words("a head that does not decay", sizes), still)
    fast = make(draw, sizes) | {"rate": draw.uniform(sizes["h"], low=70, high=90)}
    yield Case(in_words("heads that forget at once (rates above 70)", sizes), fast)


def attend(
    q, k, v, rate, real, state, *, enters=lambda real: real, ages=lambda real: real,
    answers=lambda real: real, late=0,
):  # fmt: skip
    """The recurrence on real tokens alone; each option is one thing that can be got wrong."""
    rows = []
    for t in range(q.shape[2]):
        enter, age, answer = (
            part(real)[:, t].to(v.dtype)[:, None, None] for part in (enters, ages, answers)
        )
        keep = torch.exp(-rate[:, None] * age)[..., None]  # 1 where a token is padding
        new = (enter * k[:, :, t])[..., :, None] * v[:, :, t, None, :]
        state = keep * (state + new) if late else keep * state + new
        rows.append(answer * (q[:, :, t, None, :] @ state)[:, :, 0])
    return torch.stack(rows, dim=2), state


def attend_by_ages(q, k, v, rate, real, state):
    """By the number of real tokens up to each."""
    age = real.cumsum(1).to(v.dtype)
    since = (age[:, :, None] - age[:, None, :]).clamp(min=0)[:, None]
    mask = (torch.exp(-rate[:, None, None] * since) * real[:, None, None]).tril()
    left = torch.exp(-rate[:, None] * age[:, None])[..., None]
    o = (q @ k.mT * mask) @ v + left * (q @ state)
    to_end = torch.exp(-rate[:, None] * (age[:, -1:] - age)[:, None]) * real[:, None]
    return o * real[:, None, :, None], left[:, :, -1:] * state + (to_end[..., None] * k).mT @ v


def attend_text_by_text(q, k, v, rate, real, state):
    outputs, states = [], []
    for i, tokens in enumerate(real):
        one = slice(i, i + 1)
        n = int(tokens.sum())
        o, S = 0 * v[one], state[one]
        if n:
            last = (x[one, :, -n:] for x in (q, k, v))
            done, S = linear_attention(*last, rate, state=S, return_state=True)
            o = torch.cat([o[:, :, :-n], done], dim=2)
        outputs.append(o)
        states.append(S)
    return torch.cat(outputs), torch.cat(states)


def padded_in_place(q, k, v, rate, real, state):
    o, new = attend(q, k, v, rate, real, state)
    return o, state.copy_(new)


padding = Exercise(
    number="12.4", title="Padding leaves no trace", level=3, worth=4, minutes=25,
    needs="lesson 12, section 8, and 4.4",
    function="attend_padded",
    returns={"o": "text head token value", "state": "text head key value"},
    reference=attend,
    cases=padded,
    answers={"by ages": attend_by_ages, "text by text": attend_text_by_text},
    mistakes={
        "padding went into the state": partial(attend, enters=torch.ones_like),
        "padding ages the state": partial(attend, ages=torch.ones_like),
        "padding is treated like every other token": partial(
            attend, enters=torch.ones_like, ages=torch.ones_like, answers=torch.ones_like
        ),
        "padding goes into the state and ages it; only its answers were set to 0": partial(
            attend, enters=torch.ones_like, ages=torch.ones_like
        ),
        "the answers at padding are not 0": partial(attend, answers=torch.ones_like),
        "real tokens were taken for padding, and padding for tokens": (
            lambda q, k, v, rate, real, state: attend(q, k, v, rate, ~real, state)
        ),
        "all texts were taken to be padded like the first": (
            lambda q, k, v, rate, real, state: attend(
                q, k, v, rate, real[:1].expand_as(real), state
            )
        ),
        "the state that was given is left out": lambda q, k, v, rate, real, state: attend(
            q, k, v, rate, real, 0 * state
        ),
        "the newest token is decayed as well": partial(attend, late=1),
        "nothing decays": lambda q, k, v, rate, *others: attend(q, k, v, 0 * rate, *others),
        "q and k are swapped": lambda q, k, *others: attend(k, q, *others),
        "the state that was given is written over": padded_in_place,
    },
)  # fmt: skip

EXERCISES = [breaking, go_on, choosing, padding]
QUESTIONS = [
    Question(
        number="12.5", title="A chat that can be taken back", level=2, worth=3, minutes=10,
        needs="lesson 12, sections 4 and 8",
    ),
]  # fmt: skip
