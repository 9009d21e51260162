"""What is refused before any launch, and with which sentence."""

import os

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from .plan import LARGEST_CHUNK

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
KNOWN = WeakTensorKeyDictionary()  # rate -> its version when its values were last read


def require(ok, error, sentence):
    if not ok:
        raise error(sentence)


def interpreted():
    """Whether Triton runs in its interpreter, on the CPU. It decides so when it is imported."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def check_launch(x):
    """Triton launches on a GPU, or on a CPU in its interpreter."""
    require(
        x.is_cuda or interpreted(), RuntimeError,
        f"transnormer_kernels: the tensors are on {x.device}, and Triton needs a GPU; move them to "
        "'cuda', or set TRITON_INTERPRET=1 before Triton is imported to run slowly on a CPU.",
    )  # fmt: skip


def check_tensor(name, x, shape, dtypes, device=None):
    """x is a tensor of this shape (None: any size), one of these dtypes, on this device or any."""
    require(
        isinstance(x, torch.Tensor), TypeError, f"{name} is a {type(x).__name__}; pass a tensor."
    )
    sizes = zip(shape, x.shape, strict=False)
    fits = x.ndim == len(shape) and all(want in (None, size) for want, size in sizes)
    wanted = ", ".join("any" if w is None else f"{w}" for w in shape)
    require(fits, ValueError, f"{name} has shape {tuple(x.shape)}; ({wanted}) was expected.")
    names = " or ".join(str(d) for d in dtypes)
    require(x.dtype in dtypes, TypeError, f"{name} is {x.dtype}; it must be {names}: convert it.")
    require(
        device in (None, x.device), ValueError,
        f"{name} is on {x.device}, others on {device}; move it there.",
    )  # fmt: skip


def check_span(name, x, rows):
    """A tile of so many rows begins at most 2^31 numbers before it ends: kernels count in int32."""
    sizes = [min(rows, x.shape[-2]) if x.ndim > 1 else 1, x.shape[-1]]
    span = sum((n - 1) * step for n, step in zip(sizes[-x.ndim :], x.stride()[-2:], strict=True))
    require(
        span < 2**31, ValueError,
        f"{name} has strides {x.stride()}: {rows} rows of it span 2^31 numbers or more; call "
        ".contiguous() on it first.",
    )  # fmt: skip


def check_rate(rate, b, h, device):
    """rate (h,) or (b, h), floating, fixed, finite, ≥ 0."""
    require(
        isinstance(rate, torch.Tensor),
        TypeError,
        f"rate is a {type(rate).__name__}; pass a tensor.",
    )
    fits = rate.ndim in (1, 2) and rate.shape[-1] == h and (rate.ndim == 1 or rate.shape[0] == b)
    require(
        fits, ValueError,
        f"rate has shape {tuple(rate.shape)}; ({h},) or ({b}, {h}) was expected, one per head.",
    )  # fmt: skip
    require(
        rate.dtype.is_floating_point, TypeError,
        f"rate is {rate.dtype}; it must be floating: the natural-log rate -log λ.",
    )  # fmt: skip
    require(
        rate.device == device,
        ValueError,
        f"rate is on {rate.device}, q on {device}; move it there.",
    )
    require(
        not rate.requires_grad, ValueError,
        "rate requires a gradient, but the decay is fixed here, not learned; pass rate.detach().",
    )  # fmt: skip
    check_values(rate)


def check_values(rate):
    """rate is finite and ≥ 0. A GPU's is read once, since the host has to wait for it.

    Where there are no values to read, it is not: in a tracer, and while a CUDA graph is recorded.
    """
    plain = type(rate) in (torch.Tensor, torch.nn.Parameter)
    if torch.compiler.is_compiling() or not plain or rate.is_meta:
        return
    version = 0 if rate.is_inference() else rate._version
    if rate.is_cuda and (KNOWN.get(rate) == version or torch.cuda.is_current_stream_capturing()):
        return
    if not ((rate >= 0) & rate.isfinite()).all():
        raise ValueError(
            f"rate lies in {rate.min():g}…{rate.max():g}; finite rates ≥ 0 were expected."
        )
    KNOWN[rate] = version


def check_operator(q, k, v, rate, state=None):
    """The signature shared by all forms: q, k (b, h, n, dk), v (b, h, n, dv), rate, state."""
    require(isinstance(q, torch.Tensor), TypeError, f"q is a {type(q).__name__}; pass a tensor.")
    require(
        q.ndim == 4 and q.numel() > 0, ValueError,
        f"q has shape {tuple(q.shape)}; (b, h, n, dk) with every size at least 1 was expected.",
    )  # fmt: skip
    b, h, n, dk = q.shape
    check_tensor("q", q, (b, h, n, dk), DTYPES, q.device)
    check_tensor("k", k, (b, h, n, dk), (q.dtype,), q.device)
    check_tensor("v", v, (b, h, n, None), (q.dtype,), q.device)
    for name, size in (("dk", dk), ("dv", v.shape[-1])):
        require(16 <= size <= 256, ValueError, f"{name} is {size}; the kernels serve 16 to 256.")
    for name, x in (("q", q), ("k", k), ("v", v)):
        check_span(name, x, LARGEST_CHUNK)
    check_rate(rate, b, h, q.device)
    if state is not None:
        check_tensor("state", state, (b, h, dk, v.shape[-1]), (torch.float32,), q.device)
