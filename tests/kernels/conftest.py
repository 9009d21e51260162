"""Kernel tests run on a GPU where there is one (`-m gpu`), else in Triton's interpreter.

The interpreter is switched on before Triton is imported, and only where no GPU is found.
"""

import os

import pytest
import torch

GPU = torch.cuda.is_available()
if not GPU:
    os.environ.setdefault("TRITON_INTERPRET", "1")

pytest.importorskip("triton", reason="Triton has wheels for Linux alone")


def places(*dtypes):
    """(device, dtype) pairs: the interpreter for fp32, fp16 (its bf16 is wrong), a GPU for all."""
    names = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
    cpu = [
        pytest.param(
            "cpu", d, id=f"cpu-{names[d]}", marks=pytest.mark.skipif(GPU, reason="GPU here")
        )
        for d in dtypes
        if d != torch.bfloat16
    ]
    need = [pytest.mark.gpu, pytest.mark.skipif(not GPU, reason="needs a GPU")]
    return cpu + [pytest.param("cuda", d, id=f"cuda-{names[d]}", marks=need) for d in dtypes]


ALL = (torch.float32, torch.float16, torch.bfloat16)
BOUND = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 3e-3}


def bound(dtype, n):
    """BOUND; but at n = 1 a bf16 result rests on one score, and nothing averages its rounding out.

    That is 2^-8 at most, and as much again when the result is rounded.
    """
    return 2**-7 if n == 1 and dtype == torch.bfloat16 else BOUND[dtype]


EVERYWHERE = pytest.mark.parametrize("device, dtype", places(*ALL))
ANYWHERE = pytest.mark.parametrize("device, dtype", places(torch.float32))
HALF = pytest.mark.parametrize("device, dtype", places(torch.float16, torch.bfloat16))
ONLY_GPU = pytest.mark.parametrize("device, dtype", places(*ALL)[-3:])


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
