"""The one door to the kernels: linear attention by whatever is fastest where the tensors are."""

import importlib.util
import logging
from functools import cache

import torch
from torch import Tensor

from transnormer_edu import check
from transnormer_edu.attention import check_operands, linear_attention

BACKENDS = ("auto", "triton", "torch")
KERNEL_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
KERNEL_FEATURES = 16, 256  # least and most features of a head

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
              whose type and sizes it takes, else the chunked form; never the interpreter.

    Raises what `linear_attention` raises, ValueError for an unknown backend, and ImportError
    where the kernel is asked for by name and Triton is not installed.
    """
    check.one_of("backend", backend, BACKENDS)
    check.tensors(q=q, v=v, rate=rate)
    if backend == "triton" or (backend == "auto" and _kernel_serves(q, v)):
        check_operands(q, k, v, rate, state)
        return _kernel()(q, k, v, rate, state=state, return_state=return_state)
    return linear_attention(q, k, v, rate, state=state, return_state=return_state)


def triton_installed() -> bool:
    """True where both Triton and the project's kernels can be imported."""
    return all(map(importlib.util.find_spec, ("triton", "transnormer_kernels")))


TRITON_FOUND = triton_installed()  # looked up once: torch.compile cannot follow the search


def _kernel_serves(q: Tensor, v: Tensor) -> bool:
    least, most = KERNEL_FEATURES
    fits = least <= q.shape[-1] <= most and least <= v.shape[-1] <= most
    return q.is_cuda and q.dtype in KERNEL_DTYPES and fits and _triton_found()


def _triton_found() -> bool:
    if not TRITON_FOUND and not torch.compiler.is_compiling():
        _say_so_once()
    return TRITON_FOUND


@cache
def _say_so_once() -> None:
    log.debug("Triton is not installed: attention runs as the chunked PyTorch form")


def _kernel():
    if not triton_installed():
        raise ImportError(
            'backend="triton" needs Triton, which exists for Linux; use backend="torch" or "auto"'
        )
    import transnormer_kernels  # only here: importing it imports Triton

    return transnormer_kernels.lightning_attention
