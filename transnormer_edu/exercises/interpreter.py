"""Triton for the exercises: in its interpreter where no GPU is, and a stand-in where there is none.

    from transnormer_edu.exercises.interpreter import tl, triton

Triton's wheels are for Linux. Elsewhere kernels can be written down, and a check of one says that
it needs Triton.
"""

import os
from types import SimpleNamespace

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported
try:
    import triton
    import triton.language as tl
except ImportError:
    triton, tl = SimpleNamespace(jit=lambda kernel: kernel), SimpleNamespace(constexpr=None)

__all__ = ["tl", "triton"]
