"""The kernels of lesson 08's exercises: right ones, and with a FAULT the known mistakes.

    carry[grid](..., FAULT="late")      needs Triton; `lesson_08` imports this only to launch one

All tensors are contiguous: x, y (n, d); q, k (h, n, DK), v, o (h, n, DV), states (h, DK, DV),
rate (h,).
"""

from transnormer_edu.exercises.interpreter import tl, triton

# --- 8.2 ------------------------------------------------------------------------------------------


@triton.jit
def fade(
    x_ptr, y_ptr, rate, n, d, ROWS: tl.constexpr, COLS: tl.constexpr, FAULT: tl.constexpr = ""
):
    one, other = tl.program_id(0), tl.program_id(1)
    if FAULT == "ids swapped":
        one, other = other, one
    if FAULT == "one block of columns":
        other = 0
    rows: tl.constexpr = 4 if FAULT == "four rows" else ROWS
    cols: tl.constexpr = 8 if FAULT == "eight columns" else COLS
    in_block = tl.arange(0, rows)[:, None]
    t = one * rows + in_block
    i = other * cols + tl.arange(0, cols)[None, :]
    place = t * COLS + i if FAULT == "long as a tile" else t * d + i
    here = (t < n) & (i < d)
    if FAULT == "no mask of rows":
        here = i < d
    if FAULT == "no mask of columns":
        here = t < n
    x = tl.load(x_ptr + place, mask=(t < n) & (i < d), other=0.0)
    if FAULT == "age in the block":
        t = in_block
    if FAULT == "columns":
        t = i
    if FAULT == "late":
        t = t + 1
    left = tl.exp(-rate * t)
    if FAULT == "grows":
        left = tl.exp(rate * t)
    if FAULT == "rate for λ":
        left = tl.exp(tl.log(rate) * t)
    if FAULT == "line":
        left = 1 - rate * t
    if FAULT == "nothing":
        left = 1.0
    if FAULT == "no mask":
        tl.store(y_ptr + place, x * left)
    else:
        tl.store(y_ptr + place, x * left, mask=here)


@triton.jit
def fade_row_by_row(x_ptr, y_ptr, rate, n, d, ROWS: tl.constexpr, COLS: tl.constexpr):
    i = tl.program_id(1) * COLS + tl.arange(0, COLS)
    first = tl.program_id(0) * ROWS
    for t in range(first, tl.minimum(first + ROWS, n)):
        x = tl.load(x_ptr + t * d + i, mask=i < d, other=0.0)
        tl.store(y_ptr + t * d + i, x * tl.exp(-rate * t), mask=i < d)


@triton.jit
def fade_place_by_place(x_ptr, y_ptr, rate, n, d, ROWS: tl.constexpr, COLS: tl.constexpr):
    """A block as one long row of numbers."""
    number = tl.arange(0, ROWS * COLS)
    t = tl.program_id(0) * ROWS + number // COLS
    i = tl.program_id(1) * COLS + number % COLS
    here = (t < n) & (i < d)
    x = tl.load(x_ptr + t * d + i, mask=here)  # what it hides is not stored
    tl.store(y_ptr + t * d + i, x / tl.exp(rate * t), mask=here)


# --- 8.3 ------------------------------------------------------------------------------------------


@triton.jit
def carry(
    q_ptr, k_ptr, v_ptr, state_ptr, rate_ptr, o_ptr, last_ptr, n, DK: tl.constexpr,
    DV: tl.constexpr, DK_TILE: tl.constexpr, DV_TILE: tl.constexpr, FAULT: tl.constexpr = "",
):  # fmt: skip
    h = tl.program_id(0)
    if FAULT == "one head":
        h = 0 * h
    i, c = tl.arange(0, DK_TILE), tl.arange(0, DV_TILE)
    whole_keys = FAULT == "keys not masked"
    key, value = (i < DK) | whole_keys, (c < DV) | (FAULT == "values not masked")
    table = i[:, None] * DV + c[None, :]
    inside = (i < DK)[:, None] & (c < DV)[None, :]
    rate = tl.load(rate_ptr + (0 if FAULT == "first rate" else h))
    if FAULT == "grows":
        rate = -rate
    keep = tl.exp(-rate)
    if FAULT == "rate for λ":
        keep = rate
    if FAULT == "nothing":
        keep = keep * 0 + 1
    state = tl.load(state_ptr + h * DK * DV + table, mask=inside, other=0.0)
    if FAULT == "no state":
        state = tl.zeros((DK_TILE, DV_TILE), tl.float32)
    if FAULT == "all rows":
        state = tl.load(state_ptr + h * DK * DV + table)
    for t in range(n):
        row = h * n + t
        if FAULT == "same head":
            row = t
        q = tl.load((k_ptr if FAULT == "swapped" else q_ptr) + row * DK + i, mask=key, other=0.0)
        k = tl.load((q_ptr if FAULT == "swapped" else k_ptr) + row * DK + i, mask=key, other=0.0)
        v = tl.load(v_ptr + row * DV + c, mask=value, other=0.0)
        if FAULT == "no other":
            q = tl.load(q_ptr + row * DK + i, mask=key)
            k = tl.load(k_ptr + row * DK + i, mask=key)
        before = state
        new = k[:, None] * v[None, :]
        if FAULT == "late":
            state = keep * (state + new)
        elif FAULT == "replaced":
            state = new
        else:
            state = keep * state + new
        read = before if FAULT == "read first" else state
        o = tl.sum(q[:, None] * read, axis=0)
        tl.store(o_ptr + (h * n + t) * DV + c, o, mask=value)
    if FAULT == "written over":
        tl.store(state_ptr + h * DK * DV + table, state, mask=inside)
    elif FAULT == "whole state":
        tl.store(last_ptr + h * DK * DV + table, state)
    elif FAULT != "not stored":
        tl.store(last_ptr + h * DK * DV + table, state, mask=inside)


@triton.jit
def carry_turned(
    q_ptr, k_ptr, v_ptr, state_ptr, rate_ptr, o_ptr, last_ptr, n, DK: tl.constexpr,
    DV: tl.constexpr, DK_TILE: tl.constexpr, DV_TILE: tl.constexpr,
):  # fmt: skip
    """The state lies the other way, and what is new is read apart: o = (λ q S) + (q · k) v."""
    h, i, c = tl.program_id(0), tl.arange(0, DK_TILE)[None, :], tl.arange(0, DV_TILE)[:, None]
    q_ptr += h * n * DK
    k_ptr += h * n * DK
    v_ptr += h * n * DV
    o_ptr += h * n * DV
    table, inside = h * DK * DV + i * DV + c, (i < DK) & (c < DV)
    keep = tl.exp(-tl.load(rate_ptr + h))
    state = tl.load(state_ptr + table, mask=inside, other=0.0)
    for t in range(n):
        q = tl.load(q_ptr + t * DK + i, mask=i < DK, other=0.0)
        k = tl.load(k_ptr + t * DK + i, mask=i < DK, other=0.0)
        v = tl.load(v_ptr + t * DV + c, mask=c < DV, other=0.0)
        o = keep * tl.sum(state * q, axis=1, keep_dims=True) + tl.sum(q * k) * v
        tl.store(o_ptr + t * DV + c, o, mask=c < DV)
        state = keep * state + v * k
    tl.store(last_ptr + table, state, mask=inside)


@triton.jit
def carry_unfaded(
    q_ptr, k_ptr, v_ptr, state_ptr, rate_ptr, o_ptr, last_ptr, n, DK: tl.constexpr,
    DV: tl.constexpr, DK_TILE: tl.constexpr, DV_TILE: tl.constexpr,
):  # fmt: skip
    """No state: every token looks back at all before it."""
    h, i, c = tl.program_id(0), tl.arange(0, DK_TILE), tl.arange(0, DV_TILE)
    table = h * DK * DV + i[:, None] * DV + c[None, :]
    inside = (i < DK)[:, None] & (c < DV)[None, :]
    rate = tl.load(rate_ptr + h)
    given = tl.load(state_ptr + table, mask=inside, other=0.0)
    total = given
    for t in range(n):
        q = tl.load(q_ptr + (h * n + t) * DK + i, mask=i < DK, other=0.0)
        total = tl.exp(-rate * (t + 1)) * given
        for s in range(t + 1):
            k = tl.load(k_ptr + (h * n + s) * DK + i, mask=i < DK, other=0.0)
            v = tl.load(v_ptr + (h * n + s) * DV + c, mask=c < DV, other=0.0)
            total += tl.exp(-rate * (t - s)) * k[:, None] * v[None, :]
        tl.store(o_ptr + (h * n + t) * DV + c, tl.sum(q[:, None] * total, axis=0), mask=c < DV)
    tl.store(last_ptr + table, total, mask=inside)


# --- 8.4 ------------------------------------------------------------------------------------------


@triton.jit
def chunks(
    q_ptr, k_ptr, v_ptr, rate_ptr, o_ptr, last_ptr, n, DK: tl.constexpr, DV: tl.constexpr,
    DK_TILE: tl.constexpr, DV_TILE: tl.constexpr, CHUNK: tl.constexpr, FAULT: tl.constexpr = "",
):  # fmt: skip
    h = tl.program_id(0)
    keys: tl.constexpr = 16 if FAULT == "sixteen keys" else DK_TILE
    j, i, c = tl.arange(0, CHUNK), tl.arange(0, keys)[None, :], tl.arange(0, DV_TILE)[None, :]
    rate = tl.load(rate_ptr + (0 if FAULT == "first rate" else h))
    if FAULT == "nothing":
        rate = 0 * rate
    gap = j[:, None] - j[None, :]
    seen = gap >= 0
    if FAULT == "cut by product":
        seen = rate * gap >= 0
    if FAULT == "not cut":
        seen = gap > -CHUNK
    mask = tl.where(seen, tl.exp(-rate * tl.maximum(gap, 0)), 0.0)
    if FAULT == "flat inside":
        mask = tl.where(seen, 1.0, 0.0)
    since = j if FAULT == "since" else j + 1
    state = tl.zeros((keys, DV_TILE), tl.float32)
    base = 0 * h if FAULT == "same head" else h
    for first in range(0, n, CHUNK):
        t = first + j[:, None]
        live = tl.minimum(n - first, CHUNK)
        if FAULT == "whole chunks":
            live = live * 0 + CHUNK
        there = (t < n) | (FAULT == "rows not masked")
        until = tl.exp(-rate * tl.maximum(live - 1 - j, 0))[:, None]
        if FAULT == "grows":
            until = tl.exp(-rate * (live - 1 - j))[:, None]
        if FAULT == "until":
            until = tl.exp(-rate * tl.maximum(live - j, 0))[:, None]
        if FAULT == "undecayed":
            until = until * 0 + 1
        q = tl.load(q_ptr + (base * n + t) * DK + i, mask=there & (i < DK), other=0.0)
        k = tl.load(k_ptr + (base * n + t) * DK + i, mask=there & (i < DK), other=0.0)
        v = tl.load(v_ptr + (base * n + t) * DV + c, mask=there & (c < DV), other=0.0)
        if FAULT == "no other":
            q = tl.load(q_ptr + (h * n + t) * DK + i, mask=there & (i < DK))
            k = tl.load(k_ptr + (h * n + t) * DK + i, mask=there & (i < DK))
            v = tl.load(v_ptr + (h * n + t) * DV + c, mask=there & (c < DV))
        if FAULT == "swapped":
            q, k = k, q
        near = tl.dot(q, tl.trans(k), input_precision="ieee") * mask
        o = tl.dot(near, v, input_precision="ieee")
        if FAULT == "only far":
            o = 0 * o
        added = tl.dot(tl.trans(until * k), v, input_precision="ieee")
        kept = tl.exp(-rate * live)
        if FAULT == "no fading":
            kept = kept * 0 + 1
        old = state
        state = added if FAULT == "replaced" else kept * state + added
        if FAULT == "twice":
            old = state
        if FAULT != "only near":
            o += tl.exp(-rate * since)[:, None] * tl.dot(q, old, input_precision="ieee")
        store = (t < n) | (FAULT == "stores all rows")
        tl.store(o_ptr + (h * n + t) * DV + c, o, mask=store & (c < DV))
    i = tl.arange(0, keys)[:, None]
    tl.store(last_ptr + h * DK * DV + i * DV + c, state, mask=(i < DK) & (c < DV))


@triton.jit
def chunks_turned(
    q_ptr, k_ptr, v_ptr, rate_ptr, o_ptr, last_ptr, n, DK: tl.constexpr, DV: tl.constexpr,
    DK_TILE: tl.constexpr, DV_TILE: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Everything lies the other way, tokens along the columns: Oᵀ = Vᵀ (Mᵀ ⊙ (K Qᵀ))."""
    h, j = tl.program_id(0), tl.arange(0, CHUNK)
    i, c = tl.arange(0, DK_TILE)[:, None], tl.arange(0, DV_TILE)[:, None]
    rate = tl.load(rate_ptr + h)
    state = tl.zeros((DV_TILE, DK_TILE), tl.float32)
    for first in range(0, n, CHUNK):
        t = first + j[None, :]
        q = tl.load(q_ptr + (h * n + t) * DK + i, mask=(t < n) & (i < DK), other=0.0)
        k = tl.load(k_ptr + (h * n + t) * DK + i, mask=(t < n) & (i < DK), other=0.0)
        v = tl.load(v_ptr + (h * n + t) * DV + c, mask=(t < n) & (c < DV), other=0.0)
        age = j[None, :] - j[:, None]  # of row s, read by column t
        mask = tl.where(age >= 0, tl.exp(-rate * tl.maximum(age, 0)), 0.0)
        o = tl.dot(v, tl.dot(tl.trans(k), q, input_precision="ieee") * mask, input_precision="ieee")
        o += tl.dot(state, q, input_precision="ieee") * tl.exp(-rate * (j + 1))[None, :]
        tl.store(o_ptr + (h * n + t) * DV + c, o, mask=(t < n) & (c < DV))
        end = tl.minimum(n - first, CHUNK)
        left = tl.where(j < end, tl.exp(-rate * tl.abs(end - 1 - j)), 0.0)[None, :]
        state *= tl.exp(-rate * end)
        state += tl.dot(v * left, tl.trans(k), input_precision="ieee")
    i = tl.arange(0, DK_TILE)[None, :]
    tl.store(last_ptr + h * DK * DV + i * DV + c, state, mask=(i < DK) & (c < DV))


@triton.jit
def walk(
    q_ptr, k_ptr, v_ptr, rate_ptr, o_ptr, last_ptr, n, DK: tl.constexpr, DV: tl.constexpr,
    DK_TILE: tl.constexpr, DV_TILE: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Right numbers, token by token."""
    h, i, c = tl.program_id(0), tl.arange(0, DK_TILE), tl.arange(0, DV_TILE)
    keep = tl.exp(-tl.load(rate_ptr + h))
    state = tl.zeros((DK_TILE, DV_TILE), tl.float32)
    for t in range(h * n, h * n + n):
        q = tl.load(q_ptr + t * DK + i, mask=i < DK, other=0.0)
        k = tl.load(k_ptr + t * DK + i, mask=i < DK, other=0.0)
        v = tl.load(v_ptr + t * DV + c, mask=c < DV, other=0.0)
        state = keep * state + k[:, None] * v[None, :]
        tl.store(o_ptr + t * DV + c, tl.sum(q[:, None] * state, axis=0), mask=c < DV)
    inside = (i < DK)[:, None] & (c < DV)[None, :]
    tl.store(last_ptr + h * DK * DV + i[:, None] * DV + c[None, :], state, mask=inside)
