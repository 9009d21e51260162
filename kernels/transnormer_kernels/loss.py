"""Cross-entropy of a row of logits in Triton, and its gradient in the logits' own memory.

    loss_t = log Σ_j exp(x_tj) - x_t,label        g_tj = exp(x_tj - log Σ_j exp(x_tj)) - [j = label]

A program takes one row and reads it twice: for the sum, with the running maximum taken out so that
nothing overflows, and for the gradient, when most of the row still lies in the cache. All in fp32.
"""

import torch
import triton
import triton.language as tl

from .checks import DTYPES, check_launch, check_tensor, require

COLUMNS, WARPS = 16384, 32  # held at a time: so wide that the rows in work fit into the L2 cache


@triton.jit
def loss_kernel(
    logits, labels, losses, row_stride, ignored, WIDTH: tl.constexpr, TILE: tl.constexpr
):
    """One row: its loss, then its gradient over its logits."""
    row = tl.program_id(0).to(tl.int64)
    logits += row * row_stride
    label = tl.load(labels + row)
    c = tl.arange(0, TILE)

    # largest and sum of what was read so far, apart for each of the TILE columns
    top = tl.full((TILE,), -float("inf"), tl.float32)
    total = tl.zeros((TILE,), tl.float32)
    for start in range(0, WIDTH, TILE):
        x = tl.load(logits + start + c, start + c < WIDTH, other=-float("inf")).to(tl.float32)
        higher = tl.maximum(top, x)
        # a column that has seen nothing but -inf keeps its 0: -inf - -inf would be no number
        total = tl.where(
            higher == -float("inf"), 0.0, total * tl.exp(top - higher) + tl.exp(x - higher)
        )
        top = higher
    highest = tl.max(top)
    log_sum = highest + tl.log(tl.sum(total * tl.exp(top - highest)))

    known = (label >= 0) & (label < WIDTH)
    at_label = tl.load(logits + label, known, other=float("nan")).to(tl.float32)
    read = label != ignored
    tl.store(losses + row, tl.where(read, log_sum - at_label, 0.0))
    tl.debug_barrier()  # the label's logit is read before any thread writes over it
    for start in range(0, WIDTH, TILE):
        x = tl.load(logits + start + c, start + c < WIDTH, other=0.0).to(tl.float32)
        g = tl.exp(x - log_sum) - tl.where(start + c == label, 1.0, 0.0)
        g = tl.where(read, g, 0.0)
        tl.store(logits + start + c, g.to(logits.dtype.element_ty), start + c < WIDTH)


@torch.library.custom_op("transnormer::loss_and_gradient", mutates_args=("logits",))
def loss_op(logits: torch.Tensor, labels: torch.Tensor, ignored: int) -> torch.Tensor:
    rows, width = logits.shape
    losses = torch.empty(rows, dtype=torch.float32, device=logits.device)
    tile = min(COLUMNS, triton.next_power_of_2(width))
    with torch.cuda.device_of(logits):
        loss_kernel[(rows,)](
            logits, labels, losses, logits.stride(0), ignored,
            WIDTH=width, TILE=tile, num_warps=WARPS,
        )  # fmt: skip
    return losses


@loss_op.register_fake
def _(logits, labels, ignored):
    return torch.empty(logits.shape[0], dtype=torch.float32, device=logits.device)


def loss_and_gradient_(logits, labels, ignored=-100):
    """Losses (rows,) in nats, fp32; `logits` (rows, V) then holds the gradient of their sum.

    Args: logits fp16, bf16 or fp32, rows of unit stride; labels (rows,) int64, contiguous. A label
    `ignored` gives loss and gradient 0; one that is no column gives NaN: nothing is read there.
    Raises TypeError or ValueError for what does not fit, before any launch.
    """
    check_tensor("logits", logits, (None, None), DTYPES)
    check_tensor("labels", labels, logits.shape[:1], (torch.int64,), logits.device)
    require(
        logits.stride(1) == 1 and labels.is_contiguous(), ValueError,
        f"logits have strides {logits.stride()}, labels {labels.stride()}; (any, 1) and (1,) were "
        "expected.",
    )  # fmt: skip
    check_launch(logits)
    return torch.ops.transnormer.loss_and_gradient(logits, labels, int(ignored))
