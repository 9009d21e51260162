"""The one door to the kernels: each operator by whatever is fastest where the tensors are.

On a GPU with Triton that is a kernel, elsewhere a few lines of PyTorch that say the same.
"""

import importlib.util
import logging
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transnormer_edu import check
from transnormer_edu.attention import check_operands, linear_attention
from transnormer_edu.lrpe import lrpe
from transnormer_edu.norm import EPS, srmsnorm

BACKENDS = ("auto", "triton", "torch")
KERNEL_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
KERNEL_FEATURES = 16, 256  # least and most features of a head
FEW_BIT_ROWS = 2048  # of x, at most: for more, unpacking W once and for all is faster (on an H100)

log = logging.getLogger(__name__)


def lightning_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    rate: Tensor,
    *,
    state: Tensor | None = None,
    return_state: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """o_t = sum_{s<=t} exp(-r (t-s)) (q_t k_s) v_s, with shapes and state of `linear_attention`.

    backend   "triton": the kernel, on a GPU or, for tests and lessons, in Triton's interpreter
              (TRITON_INTERPRET=1). "torch": the chunked form. "auto": the kernel for CUDA tensors
              whose type and sizes it takes, else the chunked form, which is said once, at debug
              level; never the interpreter.

    Raises what `linear_attention` raises, ValueError for an unknown backend, and ImportError
    where the kernel is asked for by name and Triton is not installed.
    """
    check.one_of("backend", backend, BACKENDS)
    check.tensors(q=q, v=v, rate=rate)
    if backend == "triton" or (backend == "auto" and _kernel_serves(q, v)):
        check_operands(q, k, v, rate, state)
        return _kernel()(q, k, v, rate, state=state, return_state=return_state)
    if backend == "auto" and not torch.compiler.is_compiling():
        _say_once(q.device.type)
    return linear_attention(q, k, v, rate, state=state, return_state=return_state)


def norm_gate(
    x: Float[Tensor, "b n d"], u: Float[Tensor, "b n d"], eps: float = EPS
) -> Float[Tensor, "b n d"]:
    """u * srmsnorm(x). Under torch.compile as it stands: the compiler makes one kernel of it too,
    and of what comes after it."""
    alike = x.dtype == u.dtype and x.shape == u.shape
    if alike and not torch.compiler.is_compiling() and _on_gpu(x):
        return _kernels().srmsnorm_gate(x, u, eps)
    return u * srmsnorm(x, eps)


def decode_step(
    q: Float[Tensor, "b h f"],
    k: Float[Tensor, "b h f"],
    v: Float[Tensor, "b h dv"],
    rate: Float[Tensor, "h"],
    state: Float[Tensor, "b h dk dv"],
    theta: Float[Tensor, "h 1 f"] | None = None,
    position: Int[Tensor, "b"] | None = None,
    early: bool = False,
) -> Float[Tensor, "b h dv"]:
    """S = lambda S + k v^T, in place;  o = q S. One token; no gradients.

    theta, position   of a layer with LRPE, which turns q and k first: then dk = 2 f, else dk = f
    early             the state may be read while the kernels before this one still run
    """
    fits = max(state.shape[-2:]) <= KERNEL_FEATURES[1]
    if fits and state.dtype == torch.float32 and _on_gpu(q):
        turn = {"theta": theta, "position": position}
        return _kernels().decode_step(q, k, v, rate, state, **turn, early=early)
    if theta is not None:
        q, k = (lrpe(x[:, :, None], theta, position[:, None])[:, :, 0] for x in (q, k))
    wide = state.dtype
    state.mul_(torch.exp(-rate.to(wide))[:, None, None])
    state.add_(k.to(wide)[..., None] * v.to(wide)[..., None, :])
    return (q.to(wide)[..., None, :] @ state)[..., 0, :].to(v.dtype)


def projection_serves(x: Tensor) -> bool:
    """Whether `projection` takes x (b, d): few rows, of a type with which decoding is fast."""
    return _on_gpu(x) and len(x) <= 8 and x.dtype != torch.float32


def projection(x: Float[Tensor, "b i"], w: Float[Tensor, "o i"], **around) -> Float[Tensor, "b o"]:
    """x w^T with the norm, gate, activation and sum around it: the kernel of that name."""
    return _kernels().projection(x, w, **around)


def few_bit_product_serves(x: Tensor) -> bool:
    """Whether `few_bit_product` takes x, and is the faster way: it has no gradient."""
    few = x.numel() <= FEW_BIT_ROWS * x.shape[-1]
    return few and _on_gpu(x) and not (x.requires_grad and torch.is_grad_enabled())


def few_bit_product(
    x: Float[Tensor, "*rows i"],
    levels: tuple,
    qzeros: Int[Tensor, "g words"],
    scales: Float[Tensor, "g o"],
    bits: int,
) -> Float[Tensor, "*rows o"]:
    """x W with W in a few bits, unpacked on the way: the kernel of that name; see `gptq`."""
    qweight, group, order = levels
    return _kernels().few_bit_product(x, qweight, qzeros, scales, group, order, bits)


def loss_and_gradient_(
    logits: Float[Tensor, "n V"], labels: Int[Tensor, "n"], ignored: int
) -> Float[Tensor, "n"]:
    """-log softmax(z)[label] of each row; the logits then hold the gradient of their sum.

    A row whose label is `ignored` gives 0 and no gradient. Computed in float32 or wider.
    """
    if _on_gpu(logits) and logits.is_contiguous() and labels.is_contiguous():
        return _kernels().loss_and_gradient_(logits, labels, ignored)
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    left_out = labels == ignored
    at = labels.masked_fill(left_out, 0)[:, None]
    log_share = wide.log_softmax(dim=-1)
    loss = -log_share.gather(1, at)
    share = log_share.exp_().scatter_add_(1, at, torch.full_like(loss, -1))
    logits.copy_(share.masked_fill_(left_out[:, None], 0))
    return loss[:, 0].masked_fill(left_out, 0)


def triton_installed() -> bool:
    """True where both Triton and the project's kernels can be imported."""
    return all(map(importlib.util.find_spec, ("triton", "transnormer_kernels")))


TRITON_FOUND = triton_installed()  # looked up once: torch.compile cannot follow the search


def _kernel_serves(q: Tensor, v: Tensor) -> bool:
    least, most = KERNEL_FEATURES
    return least <= q.shape[-1] <= most and least <= v.shape[-1] <= most and _on_gpu(q)


def _on_gpu(x: Tensor) -> bool:
    return x.is_cuda and x.dtype in KERNEL_DTYPES and TRITON_FOUND


@cache
def _say_once(device: str) -> None:
    found = "is" if TRITON_FOUND else "is not"
    log.debug(
        "Triton %s installed; on %s attention runs as the chunked PyTorch form", found, device
    )


def _kernel():
    return _kernels().lightning_attention


def _kernels():
    if not triton_installed():
        raise ImportError(
            'backend="triton" needs Triton, which exists for Linux; use backend="torch" or "auto"'
        )
    import transnormer_kernels  # only here: importing it imports Triton

    return transnormer_kernels
