"""Two kernels to compile: a module of its own, since the other process runs what stands beside."""

import triton
import triton.language as tl


@triton.jit
def product_kernel(a_ptr, b_ptr, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    place = i[:, None] * SIZE + i[None, :]
    tl.store(b_ptr + place, tl.dot(tl.load(a_ptr + place), tl.load(a_ptr + place)))


@triton.jit
def scale_kernel(x_ptr, strides, factor, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    at = x_ptr + i * strides[0]
    tl.store(at, tl.load(at, i < n) * factor, i < n)
