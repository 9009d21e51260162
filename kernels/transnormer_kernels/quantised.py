"""A product with a matrix of 2, 4 or 8 bits in AutoGPTQ's format, unpacked on the way.

    y = x W        w[i, o] = scale[g, o] * (level[i, o] - zero[g, o]),  g the group of input i

    qweight   (words, outputs)        int32    each = 32 / bits levels of neighbouring inputs,
                                               the first in the lowest bits
    qzeros    (groups, outputs/each)  int32    zero - 1 of neighbouring outputs, likewise
    scales    (groups, outputs)
    group     (words,)                int32    all levels of a word are of one group

What 4 bits save is memory. On an H100 a row of x takes two to three times as long as with W in
bf16, which cuBLAS reads at full speed, and a tenth of the time that unpacking W first would take.
"""

import torch
import triton
import triton.language as tl

from .checks import DTYPES, check_launch, check_tensor, require
from .plan import product_rows, product_tiles, row_tiles

ROW_BY_ROW = 1  # rows at most: for two the tensor cores, which unpack W once, are faster already


@triton.jit
def read_words(qweight, qzeros, scales, group, word, words, o, outputs, BITS: tl.constexpr):
    """Words of W with their scales and zeros, each (words, outputs); outside, scales are 0."""
    EACH: tl.constexpr = 32 // BITS
    inside = (word[:, None] < words) & (o[None, :] < outputs)
    packed = tl.load(qweight + word[:, None] * outputs + o[None, :], inside, other=0)
    cell = tl.load(group + word, word < words, other=0)[:, None] * outputs + o[None, :]
    scale = tl.load(scales + cell, inside, other=0.0).to(tl.float32)
    zero = tl.load(qzeros + cell // EACH, inside, other=0) >> (o % EACH * BITS)[None, :]
    return packed, scale, ((zero & ((1 << BITS) - 1)) + 1).to(tl.float32)


@triton.jit
def row_kernel(
    x, qweight, qzeros, scales, group, order, y, x_strides, inputs, outputs,
    BITS: tl.constexpr, ORDERED: tl.constexpr, WORDS: tl.constexpr, COLUMNS: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """One row of x, COLUMNS outputs; each step reads WORDS words of each."""
    EACH: tl.constexpr = 32 // BITS
    row = tl.program_id(1)
    o = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    x += row * x_strides[0]
    words = inputs // EACH
    total = tl.zeros((WORDS, COLUMNS), tl.float32)
    for start in tl.range(0, words, WORDS, num_stages=STAGES):
        word = start + tl.arange(0, WORDS)
        packed, scale, zero = read_words(
            qweight, qzeros, scales, group, word, words, o, outputs, BITS
        )
        packed = packed.to(tl.uint32, bitcast=True)
        # scale (Σ x level - zero Σ x) over a word. A level is not shifted down: where it stands in
        # the word it counts 2^(BITS place) times, and x as much less. Powers of 2 are exact.
        levels = tl.zeros((WORDS, COLUMNS), tl.float32)
        ones = tl.zeros((WORDS, 1), tl.float32)
        there = word < words
        for place in tl.static_range(EACH):
            i = word * EACH + place
            if ORDERED:
                i = tl.load(order + i, there, other=0)
            x_part = tl.load(x + i * x_strides[1], there, other=0.0).to(tl.float32)[:, None]
            level = (packed & (((1 << BITS) - 1) << (place * BITS))).to(tl.float32)
            levels += x_part * (1.0 / (1 << (place * BITS))) * level
            ones += x_part
        total += scale * (levels - zero * ones)
    tl.store(y + row * outputs + o, tl.sum(total, 0).to(y.dtype.element_ty), o < outputs)


@triton.jit
def product_kernel(
    x, qweight, qzeros, scales, group, y, x_strides, rows, inputs, outputs,
    BITS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, INPUTS: tl.constexpr,
):  # fmt: skip
    """ROWS of x, COLUMNS outputs; each step unpacks INPUTS rows of W, in the type of x."""
    EACH: tl.constexpr = 32 // BITS
    r = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    o = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    x += r[:, None] * x_strides[0]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, inputs, INPUTS):
        i = start + tl.arange(0, INPUTS)
        inside = (r[:, None] < rows) & (i[None, :] < inputs)
        x_tile = tl.load(x + i[None, :] * x_strides[1], inside, other=0.0)
        word = start // EACH + tl.arange(0, INPUTS // EACH)
        packed, scale, zero = read_words(
            qweight, qzeros, scales, group, word, inputs // EACH, o, outputs, BITS
        )
        shift = (tl.arange(0, EACH) * BITS)[None, :, None]
        level = ((packed[:, None, :] >> shift) & ((1 << BITS) - 1)).to(tl.float32)
        w_tile = scale[:, None, :] * (level - zero[:, None, :])
        w_tile = tl.reshape(w_tile, (INPUTS, COLUMNS)).to(x.dtype.element_ty)
        total += tl.dot(x_tile, w_tile, input_precision="ieee")
    inside = (r[:, None] < rows) & (o[None, :] < outputs)
    tl.store(y + r[:, None] * outputs + o[None, :], total.to(y.dtype.element_ty), inside)


@torch.library.custom_op("transnormer::few_bit_product", mutates_args=())
def product_op(
    x: torch.Tensor, qweight: torch.Tensor, qzeros: torch.Tensor, scales: torch.Tensor,
    group: torch.Tensor, order: torch.Tensor | None, bits: int,
) -> torch.Tensor:  # fmt: skip
    (rows, inputs), outputs = x.shape, qweight.shape[1]
    y = x.new_empty(rows, outputs)
    if rows > ROW_BY_ROW and order is not None:
        x, order = x[:, order], None  # one more pass over x: little beside the product
    sizes, weights = (inputs, outputs), (qweight, qzeros, scales, group)
    with torch.cuda.device_of(x):
        if 0 < rows <= ROW_BY_ROW:
            tiles = row_tiles(x.dtype)
            row_kernel[(triton.cdiv(outputs, tiles.columns), rows)](
                x, *weights, order, y, x.stride(), *sizes,
                BITS=bits, ORDERED=order is not None, WORDS=tiles.chunk, COLUMNS=tiles.columns,
                STAGES=tiles.stages, num_warps=tiles.warps,
            )  # fmt: skip
        elif rows:
            size, tiles = product_rows(x.dtype, rows), product_tiles(x.dtype, rows)
            product_kernel[(triton.cdiv(rows, size), triton.cdiv(outputs, tiles.columns))](
                x, *weights, y, x.stride(), rows, *sizes,
                BITS=bits, ROWS=size, COLUMNS=tiles.columns, INPUTS=tiles.chunk,
                num_warps=tiles.warps, num_stages=tiles.stages,
            )  # fmt: skip
    return y


@product_op.register_fake
def _(x, qweight, qzeros, scales, group, order, bits):
    return x.new_empty(x.shape[0], qweight.shape[1])


def few_bit_product(x, qweight, qzeros, scales, group, order=None, bits=4):
    """y = x W, shapes and formula as above. No gradients: W is for reading.

    Args: x (…, inputs), fp16, bf16 or fp32, any strides; order (inputs,) int32 where the rows of W
    do not stand in the order of x: row i of W belongs to input order[i]. Returns (…, outputs), of
    x's type; sums are in fp32. With more than one row W is rounded to x's type first.
    Raises TypeError or ValueError for what does not fit, before any launch.
    """
    require(isinstance(x, torch.Tensor), TypeError, f"x is a {type(x).__name__}; pass a tensor.")
    require(
        bits in (2, 4, 8) and not isinstance(bits, bool), ValueError,
        f"bits is {bits!r}; 2, 4 or 8 was expected.",
    )  # fmt: skip
    require(x.dtype in DTYPES, TypeError, f"x is {x.dtype}; it must be fp16, bf16 or fp32.")
    each, inputs = 32 // bits, x.shape[-1] if x.ndim else 0
    require(
        inputs > 0 and inputs % each == 0, ValueError,
        f"x has shape {tuple(x.shape)}; (…, inputs) with a multiple of {each} was expected.",
    )  # fmt: skip
    whole = (torch.int32,)
    check_tensor("qweight", qweight, (inputs // each, None), whole, x.device)
    outputs = qweight.shape[1]
    require(outputs % each == 0, ValueError, f"{outputs} outputs do not fill words of {each}.")
    check_tensor("scales", scales, (None, outputs), DTYPES, x.device)
    check_tensor("qzeros", qzeros, (scales.shape[0], outputs // each), whole, x.device)
    check_tensor("group", group, (inputs // each,), whole, x.device)
    if order is not None:
        check_tensor("order", order, (inputs,), whole, x.device)
    require(
        not torch.is_grad_enabled() or not x.requires_grad, ValueError,
        "few_bit_product has no gradient, but x requires one; call it under torch.no_grad().",
    )  # fmt: skip
    check_launch(x)
    stored = (t if t is None else t.contiguous() for t in (qweight, qzeros, scales, group, order))
    y = torch.ops.transnormer.few_bit_product(x.reshape(-1, inputs), *stored, bits)
    return y.view(*x.shape[:-1], outputs)
