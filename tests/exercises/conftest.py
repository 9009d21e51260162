"""Kernels among the answers run in Triton's interpreter, which has to be asked for early."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")
