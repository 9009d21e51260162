"""Exercises of lesson 13: how many GPUs, a norm over divided heads, a state handed on."""

import math
from functools import partial

import torch

from transnormer_edu.exercises.cases import in_all_shapes, in_words, some_do_not_decay
from transnormer_edu.exercises.exercise import Case, Exercise, Question
from transnormer_edu.norm import srmsnorm

# --- 13.1 -----------------------------------------------------------------------------------------


def trainings(draw):
    for what in ("", "another model", "a larger one"):
        size = {
            "parameters": draw.random.randint(5_000_000_000, 60_000_000_000),
            "token_bytes": draw.random.randint(200_000, 900_000),
            "tokens": draw.random.randint(9_000, 40_000),
            "memory": draw.random.randint(70_000_000_000, 90_000_000_000),
        }
        yield Case(in_words(what, size), size)
    exact = {"parameters": 70, "token_bytes": 3, "tokens": 20, "memory": 60 + 16 * 70 // 5}
    yield Case(in_words("numbers that divide evenly", exact), exact)
    small = {"parameters": 40, "token_bytes": 3, "tokens": 20, "memory": 1000}
    yield Case(in_words("a model that fits one GPU", small), small)
    just = {"parameters": 50, "token_bytes": 7, "tokens": 100, "memory": 701}
    yield Case(in_words("one byte that is left for the parameters", just), just)
    both = just | {"memory": 900}
    yield Case(in_words("parameters that would fit one GPU if no token came", both), both)
    for memory in (700, 512):
        full = {"parameters": 50, "token_bytes": 7, "tokens": 100, "memory": memory}
        yield Case(in_words("tokens that fill a GPU alone", full), full)


def needed(parameters, token_bytes, tokens, memory, *, each=16, up=True, never=math.inf):
    room = memory - tokens * token_bytes
    if room <= 0:
        return never
    held = each * parameters
    return -(-held // room) if up else held // room


def needed_by_trying(parameters, token_bytes, tokens, memory):
    if tokens * token_bytes >= memory:
        return math.inf
    gpus = 1
    while 16 * parameters + gpus * tokens * token_bytes > gpus * memory:
        gpus += 1
    return gpus


def needed_by_fractions(parameters, token_bytes, tokens, memory):
    """Weights, gradients and two moments apart, in whole bytes."""
    left, parts = memory - token_bytes * tokens, 4 * [4 * parameters]
    whole, rest = divmod(sum(parts), left) if left > 0 else (math.inf, 0)
    return whole + (1 if rest else 0)


counting = Exercise(
    number="13.1", title="How many GPUs", level=1, worth=2, minutes=10,
    needs="lesson 13, sections 1 and 3",
    function="gpus_for",
    returns={"count": ""},
    reference=needed,
    cases=trainings,
    answers={"one more, until it fits": needed_by_trying, "in parts": needed_by_fractions},
    mistakes={
        "a part of 4 bytes is missing: weight, gradient, and two moments of AdamW": partial(
            needed, each=12
        ),
        "only the weights were counted": partial(needed, each=4),
        "the optimiser was left out": partial(needed, each=8),
        "it was rounded down: then the last bytes have no place": partial(needed, up=False),
        "the tokens' bytes are divided too: FSDP divides what belongs to parameters": (
            lambda parameters, token_bytes, tokens, memory: (
                -(-(16 * parameters + tokens * token_bytes) // memory)
            )
        ),
        "what the tokens need was left out": lambda parameters, token_bytes, tokens, memory: (
            -(-16 * parameters // memory)
        ),
        "where the tokens leave no room no number of GPUs helps: that is math.inf": partial(
            needed, never=0
        ),
    },
    gradients=False,
)  # fmt: skip

# --- 13.2 -----------------------------------------------------------------------------------------

SHARES = ("p", "b", "n", "d")


def shares(draw):
    def make(draw, sizes):
        p, b, n, d = (sizes[name] for name in SHARES)
        # Each process's numbers have a size of their own: else the norms would be nearly alike.
        scale = draw.uniform(p, 1, 1, 1, low=0.2, high=4)
        return {"own": scale * draw.normal(p, b, n, d)}

    yield from in_all_shapes(draw, make, *SHARES)
    sizes = draw.sizes(*SHARES)
    one = sizes | {"p": 1}
    yield Case(in_words("one process", one), make(draw, one))
    quiet = make(draw, sizes)
    quiet["own"] = 1e-3 * quiet["own"]
    yield Case(in_words("numbers so small that ε counts", sizes), quiet)
    silent = make(draw, sizes)
    silent["own"] = torch.cat([torch.zeros_like(silent["own"][:1]), silent["own"][1:]])
    yield Case(in_words("a process that has only zeros", sizes), silent)


def divided_norm(own, *, over=(0, -1), eps=1e-6, total=torch.sum, power=2, root=torch.rsqrt):
    """rho from all processes' squares; each option is one thing that can be got wrong."""
    width = math.prod(own.shape[axis] for axis in over)
    squares = total(own.abs() ** power, dim=over, keepdim=True)
    return own * root(squares / (width if total is torch.sum else 1) + eps)


def joined(own):
    """All columns put together, the norm, and cut again."""
    p, b, n, d = own.shape
    whole = own.permute(1, 2, 0, 3).reshape(b, n, p * d)
    return srmsnorm(whole).reshape(b, n, p, d).permute(2, 0, 1, 3)


def summed_one_by_one(own):
    """One number per token from each process, added up around a ring."""
    squares = 0
    for piece in own:
        squares = squares + (piece * piece).sum(dim=-1)
    rho = 1 / (squares / (own.shape[0] * own.shape[-1]) + 1e-6).sqrt()
    return torch.stack([piece * rho[..., None] for piece in own])


norms = Exercise(
    number="13.2", title="A norm over divided heads", level=2, worth=3, minutes=15,
    needs="lesson 13, section 4, and lesson 06",
    function="norm_of_shares",
    returns={"y": "process text token feature"},
    reference=divided_norm,
    cases=shares,
    answers={"put together": joined, "one by one": summed_one_by_one},
    mistakes={
        "each process took the norm of its own numbers": partial(divided_norm, over=(-1,)),
        "the squares were added over the processes, and not over the own features": partial(
            divided_norm, over=(0,)
        ),
        "the sum was divided by the own width: it spans all processes": lambda own: (
            own * torch.rsqrt(own.square().sum((0, -1), keepdim=True) / own.shape[-1] + 1e-6)
        ),
        "the sum was not divided by the width": lambda own: (
            own * torch.rsqrt(own.square().sum((0, -1), keepdim=True) + 1e-6)
        ),
        "each process's own ρ was averaged: squares add up, their roots do not": lambda own: (
            own * torch.rsqrt(own.square().mean(-1, keepdim=True) + 1e-6).mean(0, keepdim=True)
        ),
        "the numbers were added, not their squares": lambda own: (
            own * torch.rsqrt(own.mean((0, -1), keepdim=True) ** 2 + 1e-6)
        ),
        "it was divided by the mean square; its root is missing": partial(
            divided_norm, root=torch.reciprocal
        ),
        "ε is missing": partial(divided_norm, eps=0),
        "all tokens of a text were normed together": partial(divided_norm, over=(0, 2, 3)),
        "all texts were normed together": partial(divided_norm, over=(0, 1, 3)),
        "only the first process's squares were counted": lambda own: (
            own * torch.rsqrt(own[:1].square().mean(-1, keepdim=True) + 1e-6)
        ),
    },
)  # fmt: skip

# --- 13.3 -----------------------------------------------------------------------------------------

STRETCHES = ("r", "b", "h", "n", "dk", "dv")


def stretches(draw):
    def make(draw, sizes):
        r, b, h, n, dk, dv = (sizes[name] for name in STRETCHES)
        return {
            "q": draw.normal(r, b, h, n, dk),
            "own_o": draw.normal(r, b, h, n, dv),
            "own_state": draw.normal(r, b, h, dk, dv),
            "rate": draw.uniform(h, low=0.02, high=0.3),
        }

    yield from in_all_shapes(draw, make, *STRETCHES)
    sizes = draw.sizes(*STRETCHES)
    for special, change in (("one process", {"r": 1}), ("two processes", {"r": 2})):
        here = sizes | change
        yield Case(in_words(special, here), make(draw, here))
    many = sizes | {"r": 8, "n": 3}
    yield Case(in_words("many short stretches", many), make(draw, many))
    still = make(draw, sizes)
    still["rate"] = some_do_not_decay(still["rate"])
    yield Case(in_words("a head that does not decay", sizes), still)
    fast = make(draw, sizes) | {"rate": draw.uniform(sizes["h"], low=800, high=900)}
    yield Case(in_words("heads that forget at once (rates above 800)", sizes), fast)


def ring(q, own_o, own_state, rate, *, keep_for=None, first=1, adds=1, ages=True, before=True):
    """Equation (6) around the ring; each option is one thing that can be got wrong."""
    m = q.shape[3]
    r = rate[:, None, None]
    keep = torch.exp(-r * (m if keep_for is None else keep_for))
    left = torch.exp(-r * (first + torch.arange(m, dtype=rate.dtype)[:, None]))
    left = left if ages else torch.ones_like(left)
    state, out = torch.zeros_like(own_state[0]), []
    for q_r, o_r, S_r in zip(q, own_o, own_state, strict=True):
        new = keep * adds * state + S_r
        out.append(o_r + (left * q_r) @ (state if before else new))
        state = new
    return torch.stack(out)


def gathered(q, own_o, own_state, rate):
    """LASP-2: everyone's state to everyone; each adds up those before it, faded by their age."""
    ranks, m = q.shape[0], q.shape[3]
    place = torch.arange(ranks)
    gap = place[:, None] - place - 1
    fade = torch.exp(-rate[:, None, None] * m * gap.clamp(min=0)) * (gap >= 0)  # (h, to, from)
    came_in = torch.einsum("hts,sbhkv->tbhkv", fade.to(q.dtype), own_state)
    left = torch.exp(-rate[:, None] * torch.arange(1, m + 1, dtype=rate.dtype))[..., None]
    return own_o + (q * left) @ came_in


def token_by_token(q, own_o, own_state, rate):
    """The state that came in fades with each token and is read."""
    fade, out, came_in = torch.exp(-rate)[:, None, None], [], 0 * own_state[0]
    for r in range(len(q)):
        state, rows = came_in, []
        for t in range(q.shape[3]):
            state = fade * state
            rows.append(own_o[r, :, :, t] + (q[r, :, :, t, None] @ state)[..., 0, :])
        out.append(torch.stack(rows, dim=2))
        came_in = state + own_state[r]
    return torch.stack(out)


handed_on = Exercise(
    number="13.3", title="A state handed on", level=3, worth=4, minutes=25,
    needs="lesson 13, section 5, and lesson 02",
    function="with_states_before",
    returns={"o": "process text head token value"},
    reference=ring,
    cases=stretches,
    answers={"everyone's to everyone": gathered, "token by token": token_by_token},
    mistakes={
        "nothing was added: each process has only its own stretch": lambda q, o, S, rate: o.clone(),
        "a process's own state was read as well: its tokens are in o already": partial(
            ring, before=False
        ),
        "only the process just before was asked: its state holds those before it, too": partial(
            ring, adds=0
        ),
        "the state was handed on without fading": partial(ring, keep_for=0),
        "the state faded by one token: a stretch has m": partial(ring, keep_for=1),
        "the state did not fade within the stretch where it is read": partial(ring, ages=False),
        "the first token of a stretch is one token after the state, not none": partial(
            ring, first=0
        ),
        "it fades by one token too many": partial(ring, first=2),
        "nothing decays": lambda q, o, S, rate: ring(q, o, S, 0 * rate),
        "the ring runs the wrong way: from the last process to the first": (
            lambda q, o, S, rate: ring(q.flip(0), o.flip(0), S.flip(0), rate).flip(0)
        ),
        "every process was given the sum of all states": lambda q, o, S, rate: o + q @ S.sum(0),
    },
)  # fmt: skip

EXERCISES = [counting, norms, handed_on]
QUESTIONS = [
    Question(
        number="13.4", title="A text of a million tokens", level=2, worth=3, minutes=10,
        needs="lesson 13, sections 5 and 7",
    ),
]  # fmt: skip
