"""Exercises of lesson 14: errors foretold, the best table, the gate, and the delta rule."""

import math
from functools import partial

import torch
from torch.nn.functional import normalize

from transnormer_edu.exercises.cases import in_all_shapes, in_words, operands
from transnormer_edu.exercises.exercise import Case, Exercise, Question

NAMES = ("b", "h", "n", "dk", "dv")

# --- 14.1 -----------------------------------------------------------------------------------------


def tables(draw):
    for n, dk in ((50, 9), (8, 8), (9, 8), (5, 13), (1, 6), (128, 128), (7, 1)):
        more = draw.random.randint(0, 40) if n > 10 else 0
        yield Case(f"With {n + more} pairs and {dk} rows", {"n": n + more, "dk": dk})


def foretold(n, dk, *, others=1, root=math.sqrt, best=lambda x: math.sqrt(max(x, 0.0))):
    return root((n - others) / dk), best(n / dk - 1)


errors = Exercise(
    number="14.1", title="Errors foretold", level=1, worth=1, minutes=6,
    needs="lesson 14, section 2",
    function="errors_of",
    returns={"by_chance": "", "at_best": ""},
    reference=foretold,
    cases=tables,
    answers={
        "by squares": lambda n, dk: (
            ((n - 1) / dk) ** 0.5, ((n - dk) / dk) ** 0.5 if n > dk else 0.0
        ),
        "by lengths": lambda n, dk: (
            math.sqrt(n - 1) / math.sqrt(dk), math.sqrt(max(n, dk) - dk) / math.sqrt(dk)
        ),
    },
    mistakes={
        "a pair was counted as its own cross-talk: there are n - 1 others": partial(
            foretold, others=0
        ),
        "the roots are missing: these are the squares of the errors": partial(
            foretold, root=lambda x: x, best=lambda x: max(x, 0.0)
        ),
        "where every pair has a direction of its own the best error is 0": partial(
            foretold, best=lambda x: math.sqrt(abs(x))
        ),
        "the two errors are swapped": lambda n, dk: foretold(n, dk)[::-1],
        "pairs and rows are swapped": lambda n, dk: foretold(dk, n),
        "the -1 is missing in the best error": lambda n, dk: (
            foretold(n, dk)[0], math.sqrt(n / dk)
        ),
        "the best error has n - 1 where it has n": lambda n, dk: (
            foretold(n, dk)[0], foretold(n - 1, dk)[1]
        ),
        "dk stands outside the root": lambda n, dk: (
            math.sqrt(n - 1) / dk, math.sqrt(max(n - dk, 0)) / dk
        ),
    },
    gradients=False,
)  # fmt: skip

# --- 14.2 -----------------------------------------------------------------------------------------


def pairs(draw):
    def make(n, dk, dv, scale=1.0, dtype=torch.float64):
        return {"k": scale * draw.normal(n, dk, dtype=dtype), "v": draw.normal(n, dv, dtype=dtype)}

    for n, dk, dv in ((3, 5, 2), (4, 4, 3), (9, 5, 7), (1, 4, 3), (6, 1, 2)):
        yield Case(in_words("", {"n": n, "dk": dk, "dv": dv}), make(n, dk, dv))
    twice = make(6, 4, 3)
    twice["k"][1] = twice["k"][0]
    yield Case("With a key that has two values (n=6, dk=4, dv=3)", twice)
    flat = make(5, 4, 3)
    flat["k"][:, 3] = flat["k"][:, 0] - flat["k"][:, 1]
    yield Case("With keys that all lie in a plane of 3 directions (n=5, dk=4, dv=3)", flat)
    for apart, how in ((3e-3, "nearly"), (1e-4, "very nearly")):
        alike = make(6, 4, 3)
        alike["k"] = alike["k"][:1] + apart * draw.normal(6, 4)
        yield Case(f"With keys that are {how} alike (n=6, dk=4, dv=3)", alike)
    for scale, how in ((1e-4, "very"), (1e-9, "extremely")):
        yield Case(f"With keys that are {how} short (n=7, dk=4, dv=2)", make(7, 4, 2, scale=scale))
    yield Case("In float32", make(3, 5, 4, dtype=torch.float32))


def best(k, v):
    return torch.linalg.pinv(k) @ v


def best_by_directions(k, v):
    """Through the keys' own directions, without those that are not there."""
    U, size, Vt = torch.linalg.svd(k, full_matrices=False)
    there = size > 1e-6 * size.max()
    return Vt[there].mT @ (U[:, there].mT @ v / size[there, None])


def written_once(k, v):
    """One turn of the delta rule."""
    S = k.new_zeros(k.shape[1], v.shape[1])
    for k_t, v_t in zip(k, v, strict=True):
        S = S + torch.outer(k_t, v_t - k_t @ S) / k_t.square().sum()
    return S


def solved(square, right):
    """By the inverse; where there is none it is what rounding makes of it, or an error."""
    return torch.linalg.inv(square) @ right


table = Exercise(
    number="14.2", title="The best table there is", level=2, worth=2, minutes=12,
    needs="lesson 14, sections 1 and 9",
    function="best_table",
    returns={"S": "key value"},
    reference=best,
    cases=pairs,
    answers={
        "least squares": lambda k, v: torch.linalg.lstsq(k, v, driver="gelsd").solution,
        "direction by direction": best_by_directions,
    },
    mistakes={
        "the pairs were added up: that is the state, with its cross-talk": lambda k, v: k.mT @ v,
        "the pairs were added up, each divided by the square of its key's length": lambda k, v: (
            (k / k.square().sum(-1, keepdim=True)).mT @ v
        ),
        "kᵀk was inverted, which needs as many directions as the table has rows": lambda k, v: (
            solved(k.mT @ k, k.mT @ v)
        ),
        "k kᵀ was inverted, which needs as many rows as there are pairs": lambda k, v: (
            k.mT @ solved(k @ k.mT, v)
        ),
        "something was added to the diagonal: short keys are then hardly heard": lambda k, v: (
            solved(k.mT @ k + 1e-8 * torch.eye(k.shape[1], dtype=k.dtype), k.mT @ v)
        ),
        "directions that few keys have were dropped": lambda k, v: (
            torch.linalg.pinv(k, rtol=1e-2) @ v
        ),
        "the delta rule went over the pairs once only": written_once,
        "only as many pairs were used as the table has rows": lambda k, v: best(
            k[: k.shape[1]], v[: k.shape[1]]
        ),
        "the keys were brought to length 1, and the questions are not": lambda k, v: best(
            normalize(k, dim=-1), v
        ),
        "keys and values are swapped": lambda k, v: best(v, k),
    },
    gradients=False,
)  # fmt: skip

# --- 14.3 -----------------------------------------------------------------------------------------


def gates(draw):
    def make(draw, sizes):
        b, h, n, dk, dv = (sizes[name] for name in NAMES)
        return operands(draw, **sizes) | {
            "alpha": draw.uniform(b, h, n, dk, low=0.05, high=0.98),
            "state": draw.normal(b, h, dk, dv),
        }

    yield from in_all_shapes(draw, make, *NAMES)
    sizes = draw.sizes(*NAMES)
    shut = make(draw, sizes)
    shut["alpha"][:, :, 5] = 0
    yield Case(in_words("a gate that drops everything at the sixth token", sizes), shut)
    mixed = make(draw, sizes)
    mixed["alpha"] = (mixed["alpha"] > 0.5).double()
    yield Case(in_words("gates that are 0 or 1", sizes), mixed)
    nearly = make(draw, sizes)
    nearly["alpha"] = nearly["alpha"] * 1e-60
    yield Case(in_words("gates of nearly 0, whose products do not fit", sizes), nearly)


def gated(
    q, k, v, alpha, state, *, gate=lambda alpha: alpha, new=lambda alpha: 1.0, late=False,
    read_first=False,
):  # fmt: skip
    """S_t = diag(α_t) S_{t-1} + k_t v_tᵀ; each option is one thing that can be got wrong."""
    rows, alpha_t = [], gate(alpha)
    for t in range(q.shape[2]):
        keep = alpha_t[:, :, t, :, None]
        added = (new(alpha[:, :, t]) * k[:, :, t])[..., :, None] * v[:, :, t, None, :]
        before = state
        state = keep * (state + added) if late else keep * state + added
        rows.append((q[:, :, t, None, :] @ (before if read_first else state))[:, :, 0])
    return torch.stack(rows, dim=2), state


def gated_from_scratch(q, k, v, alpha, state):
    """Every state anew: what is left of token s at t is the product of the gates in between."""
    rows = []
    for t in range(q.shape[2]):
        since = alpha[:, :, 1 : t + 1].flip(2).cumprod(2).flip(2)
        left = torch.cat([since, torch.ones_like(alpha[:, :, :1])], dim=2)
        given = (left[:, :, 0] * alpha[:, :, 0])[..., None] * state
        now = given + (left * k[:, :, : t + 1]).mT @ v[:, :, : t + 1]
        rows.append((q[:, :, t, None, :] @ now)[:, :, 0])
    return torch.stack(rows, dim=2), now


def products_divided(q, k, v, alpha, state):
    """Π_{s<r≤t} α_r as a quotient of two products: equal on paper."""
    left = alpha.cumprod(2)
    scores = ((q * left) @ (k / left).mT).tril()
    new = left[:, :, -1, :, None] * (state + (k / left).mT @ v)
    return scores @ v + (q * left) @ state, new


def gate_in_place(q, k, v, alpha, state):
    o, new = gated(q, k, v, alpha, state)
    return o, state.copy_(new)


gate = Exercise(
    number="14.3", title="A gate", level=2, worth=3, minutes=15,
    needs="lesson 14, section 8, and 4.4",
    function="gated_attention",
    returns={"o": "text head token value", "state": "text head key value"},
    reference=gated,
    cases=gates,
    answers={"token by token": partial(gated), "each state from scratch": gated_from_scratch},
    mistakes={
        "the newest token goes through its own gate as well": partial(gated, late=True),
        "each token was gated by the one before it": partial(
            gated, gate=lambda alpha: torch.cat(
                [torch.ones_like(alpha[:, :, :1]), alpha[:, :, :-1]], dim=2
            )
        ),
        "the gate says what to keep, not what to drop": partial(
            gated, gate=lambda alpha: 1 - alpha
        ),
        "the gate is left out": partial(gated, gate=torch.ones_like),
        "the gate was taken for a rate": partial(gated, gate=lambda alpha: torch.exp(-alpha)),
        "all rows of the state have the gate of the first": partial(
            gated, gate=lambda alpha: alpha[..., :1].expand_as(alpha)
        ),
        "all heads have the gate of the first": partial(
            gated, gate=lambda alpha: alpha[:, :1].expand_as(alpha)
        ),
        "the gate of the first token serves for all": partial(
            gated, gate=lambda alpha: alpha[:, :, :1].expand_as(alpha)
        ),
        "what is new was multiplied by 1 - α, which is not asked for": partial(
            gated, new=lambda alpha: 1 - alpha
        ),
        "a token reads the state before it has written into it": partial(gated, read_first=True),
        "the state that was given is left out": lambda q, k, v, alpha, state: gated(
            q, k, v, alpha, 0 * state
        ),
        "products of gates were divided by each other, and they may be 0": products_divided,
        "the state that was given is written over": gate_in_place,
        "q and k are swapped": lambda q, k, *others: gated(k, q, *others),
    },
)  # fmt: skip

# --- 14.4 -----------------------------------------------------------------------------------------


def deltas(draw):
    def make(draw, sizes):
        b, h, n, dk, dv = (sizes[name] for name in NAMES)
        return operands(draw, **sizes) | {
            "beta": draw.uniform(b, h, n, low=0.1, high=0.95),
            "state": draw.normal(b, h, dk, dv),
        }

    yield from in_all_shapes(draw, make, *NAMES)
    sizes = draw.sizes(*NAMES)
    whole = make(draw, sizes)
    whole["beta"] = torch.ones_like(whole["beta"])
    yield Case(in_words("β = 1, where the old answer is replaced", sizes), whole)
    idle = make(draw, sizes)
    idle["beta"][:, :, ::2] = 0
    yield Case(in_words("β = 0 at every second token, which writes nothing", sizes), idle)
    for factor, how in ((40, "long"), (1e-9, "short")):
        other = make(draw, sizes)
        other["k"] = factor * other["k"]
        yield Case(in_words(f"{how} keys", sizes), other)


def unit(k):
    return k / k.norm(dim=-1, keepdim=True)


def delta(
    q, k, v, beta, state, *, key=unit, query=lambda q: q, step=lambda beta: beta,
    drop=lambda beta: beta, ask_q=False, stale=False, read_first=False, sign=-1,
):  # fmt: skip
    """S_t = S_{t-1} + β k̂ (v - k̂ S_{t-1})ᵀ; each option is one thing that can be got wrong."""
    q, k, rows, first = query(q), key(k), [], state
    for t in range(q.shape[2]):
        k_t, b_t = k[:, :, t, :, None], beta[:, :, t, None, None]
        asked = (q if ask_q else k)[:, :, t, None, :]
        old = asked @ (first if stale else state)
        before = state
        state = state + k_t * (step(b_t) * v[:, :, t, None, :] + sign * drop(b_t) * old)
        rows.append((q[:, :, t, None, :] @ (before if read_first else state))[:, :, 0])
    return torch.stack(rows, dim=2), state


def delta_by_matrices(q, k, v, beta, state):
    """S_t = (I - β k̂ k̂ᵀ) S_{t-1} + β k̂ vᵀ."""
    k, rows = unit(k), []
    eye = torch.eye(k.shape[-1], dtype=k.dtype)
    for t in range(q.shape[2]):
        k_t, b_t = k[:, :, t], beta[:, :, t, None, None]
        outer = k_t[..., :, None] * k_t[..., None, :]
        state = (eye - b_t * outer) @ state + b_t * k_t[..., None] * v[:, :, t, None, :]
        rows.append(torch.einsum("bhi,bhij->bhj", q[:, :, t], state))
    return torch.stack(rows, dim=2), state


def delta_by_solving(q, k, v, beta, state):
    """All corrections at once: (I + tril(β K Kᵀ, -1)) U = β (V - K S)."""
    k = unit(k)
    inside = (beta[..., None] * (k @ k.mT)).tril(-1)
    eye = torch.eye(k.shape[2], dtype=k.dtype)
    right = beta[..., None] * (v - k @ state)
    u = torch.linalg.solve_triangular(eye + inside, right, upper=False)
    return (q @ k.mT).tril() @ u + q @ state, state + k.mT @ u


def faded_as_a_whole(q, k, v, beta, state):
    k, rows = unit(k), []
    for t in range(q.shape[2]):
        b_t = beta[:, :, t, None, None]
        state = (1 - b_t) * state + b_t * k[:, :, t, :, None] * v[:, :, t, None, :]
        rows.append((q[:, :, t, None, :] @ state)[:, :, 0])
    return torch.stack(rows, dim=2), state


def delta_in_place(q, k, v, beta, state):
    o, new = delta(q, k, v, beta, state)
    return o, state.copy_(new)


delta_rule = Exercise(
    number="14.4", title="The delta rule", level=3, worth=4, minutes=20,
    needs="lesson 14, section 9",
    function="delta_rule",
    returns={"o": "text head token value", "state": "text head key value"},
    reference=delta,
    cases=deltas,
    answers={
        "a matrix for each token": delta_by_matrices,
        "all corrections at once": delta_by_solving,
    },
    mistakes={
        "the old answer was not taken away: this is the plain sum": partial(delta, sign=0),
        "the old answer was added, not taken away": partial(delta, sign=1),
        "the keys were not brought to length 1": partial(delta, key=lambda k: k),
        "the queries were brought to length 1 as well": partial(delta, query=unit),
        "the keys were divided by the square of their length": partial(
            delta, key=lambda k: k / k.square().sum(-1, keepdim=True)
        ),
        "the length of a key was taken over all tokens, not over its features": partial(
            delta, key=partial(normalize, dim=2)
        ),
        "β is left out": partial(delta, step=torch.ones_like, drop=torch.ones_like),
        "the old answer was taken away whole: β belongs to the difference": partial(
            delta, drop=torch.ones_like
        ),
        "the new value was written whole: β belongs to the difference": partial(
            delta, step=torch.ones_like
        ),
        "the old answer is that to q, not to k": partial(delta, ask_q=True),
        "all old answers came from the state that was given: it changes with each token": partial(
            delta, stale=True
        ),
        "a token reads the state before it has written into it": partial(delta, read_first=True),
        "the whole state was faded by 1 - β: only what the key asks for is replaced": (
            faded_as_a_whole
        ),
        "the state that was given is left out": lambda q, k, v, beta, state: delta(
            q, k, v, beta, 0 * state
        ),
        "the state that was given is written over": delta_in_place,
        "q and k are swapped": lambda q, k, *others: delta(k, q, *others),
    },
)  # fmt: skip

EXERCISES = [errors, table, gate, delta_rule]
QUESTIONS = [
    Question(
        number="14.5", title="Which limit is it?", level=2, worth=3, minutes=10,
        needs="lesson 14, sections 4 to 7",
    ),
]  # fmt: skip
