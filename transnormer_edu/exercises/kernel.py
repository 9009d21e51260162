"""Kernels as answers: how they travel to the process that checks, and how they are launched there.

    run(kernel, grid, {"x": x}, {"y": (7, 5)}, rate, ROWS=4)  ->  y

Every tensor lies between two fences. Around inputs they are of NaN, so that whoever reads over one
computes NaN; around results they are of one odd number, so that whoever writes over one is caught.
Results are filled with NaN beforehand: what nobody has written shows. What a mask hides and no
`other` replaces is NaN, too: on a GPU it may be any number. What is read beyond and then not used
shows only `at_the_edge`, where memory ends with each tensor.
"""

import ctypes
import inspect
import io
import linecache
import mmap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec

import cloudpickle
import numpy
import torch
from torch import Tensor

from transnormer_edu.exercises.observe import Refused, identical

FENCE = 4096  # numbers before and after
ODD = 12345.0  # what the fence of a result is made of


def has_triton() -> bool:
    return find_spec("triton") is not None


def run(
    kernel: Callable,
    grid: tuple[int, ...],
    inputs: Mapping[str, Tensor],
    results: Mapping[str, tuple[int, ...]],
    *numbers,
    **sizes: int,
) -> Tensor | tuple[Tensor, ...]:
    """Launch `kernel` on pointers to inputs and results, in this order; what it wrote, in float32.

    Errors: Refused, in a sentence, where it wrote where it should not.
    """
    given = {name: _place(x) for name, x in inputs.items()}
    made = {name: _place(torch.full(shape, torch.nan), ODD) for name, shape in results.items()}
    _launch(kernel, grid, *given.values(), *made.values(), *numbers, **sizes)
    for name, x in given.items():
        if not identical(x, inputs[name].float()):
            raise Refused(f"it writes into {name}, which is an input")
    for name, x in made.items():
        if _place is fenced and not fence_holds(x):
            raise Refused(f"it writes beyond {name}: is a mask of tl.store missing, or too wide?")
    written = tuple(x.clone() for x in made.values())
    return written if len(written) > 1 else written[0]


def _launch(kernel, grid, *arguments, **sizes):
    import triton
    from triton.runtime.errors import InterpreterError

    if inspect.isfunction(kernel):
        if triton.language not in kernel.__globals__.values():
            raise Refused("it is no kernel: a kernel uses tl, and has @triton.jit above it")
        kernel = triton.jit(kernel)
    try:
        # The interpreter computes with NumPy.
        with numpy.errstate(all="ignore"), hidden_is_nan():
            kernel[grid](*arguments, **sizes)
    except InterpreterError as error:
        inside = error
        while isinstance(inside, InterpreterError) and inside.__cause__ is not None:
            inside = inside.__cause__
        raise inside from None


@contextmanager
def hidden_is_nan() -> Iterator[None]:
    """Meanwhile `tl.load` with a mask and no `other` gives NaN; the interpreter's own gives 0."""
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    load = InterpreterBuilder.create_masked_load

    def load_nan(builder, ptrs, mask, other, *options):
        if other is None and ptrs.get_element_ty().is_floating():
            hidden = numpy.full(ptrs.data.shape, numpy.nan, numpy.float32)
            other = TensorHandle(hidden, ptrs.get_element_ty())
        return load(builder, ptrs, mask, other, *options)

    InterpreterBuilder.create_masked_load = load_nan
    try:
        yield
    finally:
        InterpreterBuilder.create_masked_load = load


def fenced(x: Tensor, fence: float = torch.nan) -> Tensor:
    """A copy of x in float32 that lies between two fences."""
    buffer = torch.full((x.numel() + 2 * FENCE,), fence)
    buffer[FENCE:-FENCE] = x.flatten()
    return buffer[FENCE:-FENCE].view(x.shape)


def fence_holds(x: Tensor) -> bool:
    buffer = torch.empty(0).set_(x.untyped_storage())
    return bool((buffer[:FENCE] == ODD).all() and (buffer[-FENCE:] == ODD).all())


_place = fenced


@contextmanager
def at_the_edge() -> Iterator[None]:
    """Meanwhile whoever reads behind a tensor ends the whole process: only for a fork. On Linux."""
    global _place
    _place = _at_the_end
    yield
    _place = fenced


def _at_the_end(x: Tensor, fence: float = torch.nan) -> Tensor:
    """A copy of x in float32 with nothing behind it: the next page of memory may not be touched."""
    used = -(-4 * x.numel() // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, used + mmap.PAGESIZE)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    system = ctypes.CDLL(None, use_errno=True)
    if system.mprotect(ctypes.c_void_p(begin + used), mmap.PAGESIZE, 0):
        raise OSError(ctypes.get_errno(), "mprotect")
    at = used - 4 * x.numel()
    copy = torch.frombuffer(memory, dtype=torch.float32, count=x.numel(), offset=at)
    return copy.view(x.shape).copy_(x)


def by_value(function: Callable) -> bytes:
    """Any function, with what it uses, as bytes; kernels without what a GPU has made of them."""
    file = io.BytesIO()
    _Pickler(file).dump(function)
    return file.getvalue()


class _Pickler(cloudpickle.Pickler):
    def reducer_override(self, thing):
        if type(thing).__module__.startswith("triton.runtime") and hasattr(thing, "fn"):
            name = thing.fn.__code__.co_filename
            return _arrived, (thing.fn, name, linecache.getlines(name))
        return super().reducer_override(thing)


def _arrived(function: Callable, name: str, lines: list[str]) -> Callable:
    """Triton reads a kernel's source, which lies in another process, in a cell of a notebook."""
    import triton

    linecache.cache[name] = (sum(map(len, lines)), None, lines, name)
    return triton.jit(function)
