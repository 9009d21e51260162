"""Lightning Attention in Triton: the scan over chunks, forward and backward.

The operator, for one head with decay λ = exp(-rate):

    S_t = λ S_{t-1} + k_tᵀ v_t        the state, (dk, dv), fp32
    o_t = q_t S_t                     LA(q, k, v)

A program walks over its rows in chunks of B rows, j = 0…B-1, with the state in registers. Inside a
chunk it uses the left product, between chunks the right product (arXiv 2401.04658):

    O = ((Q Kᵀ) ⊙ M) V + Λ Q S        M_ij = λ^(i-j) for i ≥ j, else 0;  Λ = diag(λ, λ², …, λ^B)
    S = λ^B S + (λ^B Λ⁻¹ K)ᵀ V        weights λ^(B-1-j): never a negative power

and, backwards in time, with G the gradient of the state that leaves a chunk:

    dV = ((Q Kᵀ) ⊙ M)ᵀ dO + (λ^B Λ⁻¹ K) G
    dK = ((dO Vᵀ) ⊙ M)ᵀ Q + (λ^B Λ⁻¹ V) Gᵀ
    G  = λ^B G + (Λ Q)ᵀ dO

The backward is the forward: dQ = LA(dO, V, K), dK = AL(V, dO, Q), dV = AL(K, Q, dO), where AL is LA
run from the last row to the first. `scan_kernel` computes LA and, with REVERSE, AL.
`backward_kernel` computes dK and dV together, so that their four inputs are read once, and dQ in
the same launch.

Where heads are few, the rows are cut into segments, one program each. `segment_state_kernel` sums
what each segment adds to the state, `join_states_kernel` turns these sums into the state at each
segment's border, and then every segment can start at once.

The kernels hold Oᵀ and Sᵀ, and so the equations appear transposed there: the rows of a product are
what is dealt out to the warps, and the 128 columns of v occupy eight warps, the 64 rows of a chunk
only four.

Strides are in elements; a tuple of strides belongs to the tensor of the same name.
"""

import triton
import triton.language as tl


@triton.jit
def decay_power(rate, steps):
    """λ^steps with steps clamped at 0, so that nothing overflows. `rate` is in units of log 2."""
    return tl.exp2(-rate * tl.maximum(steps, 0).to(tl.float32))


@triton.jit
def load_rate(rate_ptr, rate_strides, b, h):
    """The head's rate, from natural log to log 2, since exp2 is what the hardware has.

    Above 1000 nothing changes (λ is 0), and an infinite rate · 0 tokens would be no number.
    """
    rate = tl.load(rate_ptr + b * rate_strides[0] + h * rate_strides[1])
    return tl.minimum(rate.to(tl.float32), 1000.0) * 1.4426950408889634


@triton.jit
def load_tile(
    x, strides, b, h, row, col, n,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDTH: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """Rows row…, columns col… of one head as a (ROWS, COLS) tile; what lies outside reads as 0.

    With TMA, x is a tensor descriptor: the copy engine fetches the tile and knows its borders.
    Without, x is a pointer, and any strides will do.
    """
    if TMA:
        tile = x.load([b.to(tl.int32), h.to(tl.int32), row, col]).reshape(ROWS, COLS)
    else:
        i = tl.arange(0, ROWS)[:, None]
        c = col + tl.arange(0, COLS)[None, :]
        x += b * strides[0] + h * strides[1] + row.to(tl.int64) * strides[2]
        inside = (i < n - row) & (c < WIDTH)
        tile = tl.load(x + i * strides[2] + c * strides[3], inside, other=0.0)
    return tile


@triton.jit
def store_tile(
    x, strides, b, h, row, col, n, tile,
    ROWS: tl.constexpr, COLS: tl.constexpr, WIDTH: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """The counterpart of `load_tile`: what lies outside is not written."""
    if TMA:
        tile = tile.to(x.dtype).reshape(1, 1, ROWS, COLS)
        x.store([b.to(tl.int32), h.to(tl.int32), row, col], tile)
    else:
        i = tl.arange(0, ROWS)[:, None]
        c = col + tl.arange(0, COLS)[None, :]
        x += b * strides[0] + h * strides[1] + row.to(tl.int64) * strides[2]
        inside = (i < n - row) & (c < WIDTH)
        tl.store(x + i * strides[2] + c * strides[3], tile.to(x.dtype.element_ty), inside)


@triton.jit
def state_tile(
    x, strides, b, h, segment, col,
    DK: tl.constexpr, DV: tl.constexpr, DK_TILE: tl.constexpr, DV_TILE: tl.constexpr,
):  # fmt: skip
    """Pointers and mask of columns col… of one head's state at one segment's border."""
    i = tl.arange(0, DK_TILE)[None, :]
    c = col + tl.arange(0, DV_TILE)[:, None]
    x += b * strides[0] + h * strides[1] + segment * strides[2]
    return x + i * strides[3] + c * strides[4], (i < DK) & (c < DV)


@triton.jit
def scan(
    q, k, v, o, rate, states, final_state,
    q_strides, k_strides, v_strides, o_strides, rate_strides, state_strides, final_strides,
    b, h, segment, col, n, segment_rows,
    DK: tl.constexpr, DV: tl.constexpr, DK_TILE: tl.constexpr, DV_TILE: tl.constexpr,
    CHUNK: tl.constexpr, REVERSE: tl.constexpr, HAS_STATE: tl.constexpr,
    RETURN_STATE: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """O = LA(q, k, v), or AL with REVERSE: one head, one segment, columns col… of v."""
    first = segment * segment_rows
    chunks = tl.cdiv(tl.minimum(n - first, segment_rows), CHUNK)

    r = load_rate(rate, rate_strides, b, h)
    j = tl.arange(0, CHUNK)
    gap = (j[:, None] - j[None, :]) if REVERSE else (j[None, :] - j[:, None])
    mask = tl.where(gap >= 0, decay_power(r, gap), 0.0)  # Mᵀ

    state = tl.zeros((DV_TILE, DK_TILE), tl.float32)  # Sᵀ
    if HAS_STATE:
        at, inside = state_tile(states, state_strides, b, h, segment, col, DK, DV, DK_TILE, DV_TILE)
        state = tl.load(at, inside, other=0.0)

    for step in tl.range(0, chunks, disable_licm=True):  # what costs registers is formed anew
        row = first + ((chunks - 1 - step) if REVERSE else step) * CHUNK
        q_tile = load_tile(q, q_strides, b, h, row, 0, n, CHUNK, DK_TILE, DK, TMA)
        k_tile = load_tile(k, k_strides, b, h, row, 0, n, CHUNK, DK_TILE, DK, TMA)
        v_tile = load_tile(v, v_strides, b, h, row, col, n, CHUNK, DV_TILE, DV, TMA)
        live = tl.minimum(n - row, CHUNK)  # B, but for the last chunk
        since = decay_power(r, j + 1)  # Λ
        until = decay_power(r, live - 1 - j)  # λ^B Λ⁻¹
        read, write = (until, since) if REVERSE else (since, until)

        # Oᵀ = Vᵀ ((Q Kᵀ) ⊙ M)ᵀ + Sᵀ Qᵀ Λ
        scores = tl.dot(k_tile, tl.trans(q_tile), input_precision="ieee") * mask
        o_tile = tl.dot(state.to(q_tile.dtype), tl.trans(q_tile), input_precision="ieee")
        o_tile *= read[None, :]
        o_tile = tl.dot(tl.trans(v_tile), scores.to(v_tile.dtype), o_tile, input_precision="ieee")
        store_tile(o, o_strides, b, h, row, col, n, tl.trans(o_tile), CHUNK, DV_TILE, DV, TMA)

        # Sᵀ = λ^B Sᵀ + (λ^B Λ⁻¹ V)ᵀ K
        v_write = tl.trans(v_tile * write[:, None]).to(v_tile.dtype)
        state = tl.dot(v_write, k_tile, state * decay_power(r, live), input_precision="ieee")

    if RETURN_STATE:  # noqa: SIM102 (decided when the kernel is compiled)
        if segment == (0 if REVERSE else tl.num_programs(1) - 1):
            at, inside = state_tile(
                final_state, final_strides, b, h, 0, col, DK, DV, DK_TILE, DV_TILE
            )
            tl.store(at, state, inside)


@triton.jit
def scan_kernel(
    q, k, v, o, rate, states, final_state,
    q_strides, k_strides, v_strides, o_strides, rate_strides, state_strides, final_strides,
    heads, n, segment_rows,
    DK: tl.constexpr, DV: tl.constexpr, DK_TILE: tl.constexpr, DV_TILE: tl.constexpr,
    CHUNK: tl.constexpr, REVERSE: tl.constexpr, HAS_STATE: tl.constexpr,
    RETURN_STATE: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """One scan. A program: one head, one segment, one slice of DV_TILE columns of v."""
    slices: tl.constexpr = (DV + DV_TILE - 1) // DV_TILE
    col = (tl.program_id(0) % slices) * DV_TILE
    head = (tl.program_id(0) // slices).to(tl.int64)
    scan(q, k, v, o, rate, states, final_state,
         q_strides, k_strides, v_strides, o_strides, rate_strides, state_strides, final_strides,
         head // heads, head % heads, tl.program_id(1), col, n, segment_rows,
         DK, DV, DK_TILE, DV_TILE, CHUNK, REVERSE, HAS_STATE, RETURN_STATE, TMA)  # fmt: skip


@triton.jit
def scan_back(
    q, k, v, do, dk, dv, rate, grads, first_grad,
    q_strides, k_strides, v_strides, do_strides, dk_strides, dv_strides,
    rate_strides, grad_strides, first_strides,
    b, h, segment, n, segment_rows,
    DK: tl.constexpr, DV: tl.constexpr, DK_TILE: tl.constexpr, DV_TILE: tl.constexpr,
    CHUNK: tl.constexpr, HAS_GRAD: tl.constexpr, RETURN_GRAD: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """dV = AL(K, Q, dO) and dK = AL(V, dO, Q) in one walk over one head's segment, from its end.

    G is carried twice: in fp32, and rounded for the products, which read it from shared memory both
    upright and transposed.
    """
    first = segment * segment_rows
    chunks = tl.cdiv(tl.minimum(n - first, segment_rows), CHUNK)

    r = load_rate(rate, rate_strides, b, h)
    j = tl.arange(0, CHUNK)
    gap = j[:, None] - j[None, :]
    mask = tl.where(gap >= 0, decay_power(r, gap), 0.0)  # M
    since = decay_power(r, j + 1)[:, None]  # Λ

    grad = tl.zeros((DV_TILE, DK_TILE), tl.float32)  # Gᵀ
    if HAS_GRAD:
        at, inside = state_tile(grads, grad_strides, b, h, segment, 0, DK, DV, DK_TILE, DV_TILE)
        grad = tl.load(at, inside, other=0.0)
    g_tile = grad.to(dk.dtype.element_ty)

    for step in tl.range(0, chunks, disable_licm=True):  # what costs registers is formed anew
        row = first + (chunks - 1 - step) * CHUNK
        q_tile = load_tile(q, q_strides, b, h, row, 0, n, CHUNK, DK_TILE, DK, TMA)
        k_tile = load_tile(k, k_strides, b, h, row, 0, n, CHUNK, DK_TILE, DK, TMA)
        v_tile = load_tile(v, v_strides, b, h, row, 0, n, CHUNK, DV_TILE, DV, TMA)
        do_tile = load_tile(do, do_strides, b, h, row, 0, n, CHUNK, DV_TILE, DV, TMA)
        live = tl.minimum(n - row, CHUNK)  # B, but for the last chunk
        until = decay_power(r, live - 1 - j)[None, :]  # λ^B Λ⁻¹

        # P = (Q Kᵀ) ⊙ M and dP = (dO Vᵀ) ⊙ M
        p_tile = tl.dot(q_tile, tl.trans(k_tile), input_precision="ieee") * mask
        p_tile = p_tile.to(q_tile.dtype)
        dp_tile = tl.dot(do_tile, tl.trans(v_tile), input_precision="ieee") * mask
        dp_tile = dp_tile.to(q_tile.dtype)

        # dVᵀ = dOᵀ P + Gᵀ Kᵀ (λ^B Λ⁻¹)
        dv_tile = tl.dot(g_tile, tl.trans(k_tile), input_precision="ieee") * until
        dv_tile = tl.dot(tl.trans(do_tile), p_tile, dv_tile, input_precision="ieee")
        store_tile(dv, dv_strides, b, h, row, 0, n, tl.trans(dv_tile), CHUNK, DV_TILE, DV, False)

        # dKᵀ = Qᵀ dP + G Vᵀ (λ^B Λ⁻¹)
        dk_tile = tl.dot(tl.trans(g_tile), tl.trans(v_tile), input_precision="ieee") * until
        dk_tile = tl.dot(tl.trans(q_tile), dp_tile, dk_tile, input_precision="ieee")
        store_tile(dk, dk_strides, b, h, row, 0, n, tl.trans(dk_tile), CHUNK, DK_TILE, DK, False)

        # Gᵀ = λ^B Gᵀ + (Λ dO)ᵀ Q
        do_read = tl.trans(do_tile * since).to(do_tile.dtype)
        grad = tl.dot(do_read, q_tile, grad * decay_power(r, live), input_precision="ieee")
        g_tile = grad.to(q_tile.dtype)

    if RETURN_GRAD:  # noqa: SIM102 (decided when the kernel is compiled)
        if segment == 0:
            at, inside = state_tile(first_grad, first_strides, b, h, 0, 0, DK, DV, DK_TILE, DV_TILE)
            tl.store(at, grad, inside)


@triton.jit
def backward_kernel(
    q, k, v, do, dq, dk, dv, rate, states, grads, first_grad,
    q_strides, k_strides, v_strides, do_strides, dq_strides, dk_strides, dv_strides,
    rate_strides, state_strides, grad_strides, first_strides,
    heads, n, segment_rows,
    DK: tl.constexpr, DV: tl.constexpr, DK_TILE: tl.constexpr, DV_TILE: tl.constexpr,
    CHUNK: tl.constexpr, HAS_STATE: tl.constexpr, HAS_GRAD: tl.constexpr,
    RETURN_GRAD: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """All three gradients. A program: one head, one segment, and either dK and dV, or dQ.

    One launch for both, the longer one first: a multiprocessor that is done with its dK and dV goes
    on to a dQ, instead of waiting for the slowest of the others.
    """
    head = tl.program_id(0).to(tl.int64)
    b, h = head // heads, head % heads
    segment = tl.program_id(1)
    if tl.program_id(2) == 0:
        scan_back(q, k, v, do, dk, dv, rate, grads, first_grad,
                  q_strides, k_strides, v_strides, do_strides, dk_strides, dv_strides,
                  rate_strides, grad_strides, first_strides, b, h, segment, n, segment_rows,
                  DK, DV, DK_TILE, DV_TILE, CHUNK, HAS_GRAD, RETURN_GRAD, TMA)  # fmt: skip
    else:  # dQ = LA(dO, V, K): the state is Sᵀ
        scan(do, v, k, dq, rate, states, None,
             do_strides, v_strides, k_strides, dq_strides, rate_strides, state_strides, None,
             b, h, segment, 0, n, segment_rows,
             DV, DK, DV_TILE, DK_TILE, CHUNK, False, HAS_STATE, False, TMA)  # fmt: skip


@triton.jit
def segment_state_kernel(
    k, v, states, rate, k_strides, v_strides, rate_strides, state_strides,
    heads, n, segment_rows,
    DK: tl.constexpr, DV: tl.constexpr, DK_TILE: tl.constexpr, DV_TILE: tl.constexpr,
    CHUNK: tl.constexpr, REVERSE: tl.constexpr, TMA: tl.constexpr,
):  # fmt: skip
    """What one segment adds to the state, Σ_j λ^(rows-1-j) k_jᵀ v_j, for the segment after it.

    With REVERSE (given q and dO) what it adds to G, Σ_j λ^(j+1) q_jᵀ dO_j, for the one before it.
    Chunks are read from the youngest to the oldest, so that the scan, which starts at the oldest,
    still finds them in the L2 cache.
    """
    slices: tl.constexpr = (DV + DV_TILE - 1) // DV_TILE
    col = (tl.program_id(0) % slices) * DV_TILE
    head = (tl.program_id(0) // slices).to(tl.int64)
    b, h = head // heads, head % heads
    segment = tl.program_id(1) + (1 if REVERSE else 0)
    first = segment * segment_rows
    rows = tl.minimum(n - first, segment_rows)
    chunks = tl.cdiv(rows, CHUNK)

    r = load_rate(rate, rate_strides, b, h)
    j = tl.arange(0, CHUNK)
    state = tl.zeros((DV_TILE, DK_TILE), tl.float32)
    for step in range(chunks):
        start = (step if REVERSE else (chunks - 1 - step)) * CHUNK
        row = first + start
        k_tile = load_tile(k, k_strides, b, h, row, 0, n, CHUNK, DK_TILE, DK, TMA)
        v_tile = load_tile(v, v_strides, b, h, row, col, n, CHUNK, DV_TILE, DV, TMA)
        live = tl.minimum(n - row, CHUNK)
        weight = decay_power(r, (j + 1) if REVERSE else (live - 1 - j))
        v_write = tl.trans(v_tile * weight[:, None]).to(v_tile.dtype)
        added = tl.dot(v_write, k_tile, input_precision="ieee")
        # the age of the chunk as a whole stays in fp32
        state += added * decay_power(r, start if REVERSE else (rows - start - live))
    target = segment + (-1 if REVERSE else 1)
    at, inside = state_tile(states, state_strides, b, h, target, col, DK, DV, DK_TILE, DV_TILE)
    tl.store(at, state, inside)


@triton.jit
def join_states_kernel(
    states, initial, rate, state_strides, initial_strides, rate_strides,
    heads, n, segment_rows, segments,
    DK: tl.constexpr, DV: tl.constexpr, SEGMENTS: tl.constexpr, TILE: tl.constexpr,
    REVERSE: tl.constexpr, HAS_STATE: tl.constexpr,
):  # fmt: skip
    """From sums to states, in place: S_s = λ^rows S_{s-1} + sum_s; sum_0 is the initial state.

    A program takes TILE of the dk·dv numbers of one head's state, for all its segments at once.
    """
    head = tl.program_id(0).to(tl.int64)
    b, h = head // heads, head % heads
    s = tl.arange(0, SEGMENTS)[:, None]
    cell = tl.program_id(1) * TILE + tl.arange(0, TILE)[None, :]
    i, c = cell // DV, cell % DV
    at = states + b * state_strides[0] + h * state_strides[1] + s * state_strides[2]
    at += i * state_strides[3] + c * state_strides[4]
    inside = (s < segments) & (i < DK)
    end = (segments - 1) if REVERSE else 0
    sums = tl.load(at, inside & (s != end), other=0.0)
    if HAS_STATE:
        initial += b * initial_strides[0] + h * initial_strides[1]
        initial += i * initial_strides[2] + c * initial_strides[3]
        sums += tl.load(initial + s * 0, inside & (s == end), other=0.0)

    before = (s + 1) if REVERSE else (s - 1)  # the segment between this border and the last one
    rows = tl.minimum(n - before * segment_rows, segment_rows)
    decay = decay_power(load_rate(rate, rate_strides, b, h), rows)
    decay, state = tl.associative_scan((decay + sums * 0, sums), 0, join_two, reverse=REVERSE)
    tl.store(at, state, inside)


@triton.jit
def join_two(decay, state, next_decay, next_sum):
    """Two steps of S ← decay·S + sum as one."""
    return decay * next_decay, state * next_decay + next_sum
