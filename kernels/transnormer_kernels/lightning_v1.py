"""Lightning Attention, first version: the left product in tiles, O(n² d) (arXiv 2307.14995, 3.3).

    O_i = Σ_{j ≤ i} ((Q_i K_jᵀ) ⊙ M_ij) V_j        M_ij = λ^(row - column), 0 above the diagonal

For a block of rows i the blocks of columns j up to the diagonal are visited one by one, so that the
n × n matrix never exists in memory. The backward is the forward: dQ = LA(dO, V, K), and with the
sequence turned round dK = AL(V, dO, Q), dV = AL(K, Q, dO). The course shows this kernel because the
second one only changes the order of the brackets.
"""

import torch
import triton
import triton.language as tl

from .checks import check_launch, check_operator
from .plan import padded, v1_tiles
from .scan import decay_power, load_rate, load_tile, store_tile


@triton.jit
def left_product_kernel(
    q, k, v, o, rate, q_strides, k_strides, v_strides, o_strides, rate_strides, heads, n,
    DK: tl.constexpr, DV: tl.constexpr, DK_TILE: tl.constexpr, DV_TILE: tl.constexpr,
    BLOCK: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """One block of rows of one head, DV_TILE columns of v."""
    slices: tl.constexpr = (DV + DV_TILE - 1) // DV_TILE
    blocks = tl.cdiv(n, BLOCK)
    block, rest = tl.program_id(0) % blocks, tl.program_id(0) // blocks
    col, head = (rest % slices) * DV_TILE, (rest // slices).to(tl.int64)
    b, h = head // heads, head % heads
    r = load_rate(rate, rate_strides, b, h)
    i = tl.arange(0, BLOCK)
    row = block * BLOCK
    q_tile = load_tile(q, q_strides, b, h, row, 0, n, BLOCK, DK_TILE, DK, False)

    o_tile = tl.zeros((BLOCK, DV_TILE), tl.float32)
    first = block if REVERSE else 0
    last = blocks if REVERSE else block + 1
    for other in range(first, last):
        at = other * BLOCK
        k_tile = load_tile(k, k_strides, b, h, at, 0, n, BLOCK, DK_TILE, DK, False)
        v_tile = load_tile(v, v_strides, b, h, at, col, n, BLOCK, DV_TILE, DV, False)
        gap = (row + i)[:, None] - (at + i)[None, :]
        gap = -gap if REVERSE else gap
        mask = tl.where(gap >= 0, decay_power(r, gap), 0.0)  # M_ij
        # O_i += ((Q_i K_jᵀ) ⊙ M_ij) V_j
        scores = tl.dot(q_tile, tl.trans(k_tile), input_precision="ieee") * mask
        o_tile = tl.dot(scores.to(v_tile.dtype), v_tile, o_tile, input_precision="ieee")
    store_tile(o, o_strides, b, h, row, col, n, o_tile, BLOCK, DV_TILE, DV, False)


def left_product(q, k, v, rate, reverse=False):
    """LA(q, k, v), or AL with `reverse`; the result is laid out in memory like v."""
    b, h, n, dk = q.shape
    dv = v.shape[-1]
    o = torch.empty_like(v)
    tiles = v1_tiles(q.dtype, dk, dv)
    grid = (triton.cdiv(n, tiles.chunk) * b * h * triton.cdiv(dv, tiles.columns),)
    sizes = {"DK": dk, "DV": dv, "DK_TILE": padded(dk), "DV_TILE": tiles.columns}
    with torch.cuda.device_of(q):
        left_product_kernel[grid](
            q, k, v, o, rate, q.stride(), k.stride(), v.stride(), o.stride(), rate.stride(), h, n,
            **sizes, BLOCK=tiles.chunk, REVERSE=reverse,
            num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip
    return o


@torch.library.custom_op("transnormer::lightning_attention_v1", mutates_args=())
def v1_op(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
    return left_product(q, k, v, rate.expand(q.shape[:2]))


@torch.library.custom_op("transnormer::lightning_attention_v1_backward", mutates_args=())
def v1_backward_op(
    do: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rate: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rate = rate.expand(q.shape[:2])
    dq = left_product(do, v, k, rate)
    dk = left_product(v, do, q, rate, reverse=True)
    return dq, dk, left_product(k, q, do, rate, reverse=True)


@v1_op.register_fake
def _(q, k, v, rate):
    return torch.empty_like(v)


@v1_backward_op.register_fake
def _(do, q, k, v, rate):
    return torch.empty_like(k), torch.empty_like(q), torch.empty_like(do)


def save_inputs(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def backward(ctx, do):
    return *torch.ops.transnormer.lightning_attention_v1_backward(do, *ctx.saved_tensors), None


v1_op.register_autograd(backward, setup_context=save_inputs)


def lightning_attention_v1(q, k, v, rate):
    """o_t = Σ_{s≤t} exp(-rate (t-s)) (q_t·k_s) v_s by the tiled left product, quadratic in n.

    Args: q, k (b, h, n, dk), v (b, h, n, dv), rate (h,) or (b, h) as for `lightning_attention`.
    Returns o (b, h, n, dv), differentiable in q, k and v. Raises as `lightning_attention` does.
    """
    check_operator(q, k, v, rate)
    check_launch(q)
    return torch.ops.transnormer.lightning_attention_v1(q, k, v, rate)
