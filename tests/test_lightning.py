"""The one door: which way it takes, and that both ways agree."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from transnormer_edu import lightning
from transnormer_edu.attention import linear_attention
from transnormer_edu.lightning import decode_step, lightning_attention
from transnormer_edu.lrpe import lrpe

LINUX_WITH_TRITON = pytest.mark.skipif(
    not lightning.triton_installed(), reason="Triton is not installed here"
)


def operands():
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 37, d, generator=draw) for d in (16, 16, 24))
    return q, k, v, torch.tensor([0.5, 0.0, 0.1])


@pytest.mark.parametrize("backend", ["auto", "torch"])
def test_on_a_cpu_it_is_the_chunked_form(backend):
    q, k, v, rate = operands()
    state = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    o, last = lightning_attention(q, k, v, rate, state=state, return_state=True, backend=backend)
    expected, end = linear_attention(q, k, v, rate, state=state, return_state=True)
    assert torch.equal(o, expected) and torch.equal(last, end)


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match="backend is 'cuda', expected one of auto, triton, torch"):
        lightning_attention(*operands(), backend="cuda")


def test_without_triton_the_name_alone_fails(monkeypatch):
    monkeypatch.setattr(lightning, "triton_installed", lambda: False)
    with pytest.raises(ImportError, match="needs Triton"):
        lightning_attention(*operands(), backend="triton")
    assert lightning_attention(*operands()).isfinite().all()


@pytest.mark.parametrize("found, words", [(False, "is not installed"), (True, "is installed")])
def test_the_fallback_says_so_once_at_debug_level(monkeypatch, caplog, found, words):
    monkeypatch.setattr(lightning, "TRITON_FOUND", found)
    lightning._say_once.cache_clear()
    with caplog.at_level(logging.DEBUG, logger=lightning.__name__):
        for _ in range(2):
            lightning_attention(*operands())
    lightning._say_once.cache_clear()
    (record,) = caplog.records
    assert record.levelname == "DEBUG"
    assert (
        record.getMessage() == f"Triton {words}; on cpu attention runs as the chunked PyTorch form"
    )


def test_importing_the_package_leaves_triton_alone():
    """Triton reads at its import whether to interpret; lessons 08 and 09 say so after this one."""
    code = "import sys, transnormer_edu; print('triton' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


@LINUX_WITH_TRITON
def test_the_kernel_in_the_interpreter_is_the_chunked_form_also_compiled():
    code = (
        "import torch; from tests.test_lightning import operands;"
        "from transnormer_edu.lightning import lightning_attention as la;"
        "a = la(*operands(), backend='triton'); b = la(*operands(), backend='torch');"
        "assert (a - b).abs().max() < 1e-4, (a - b).abs().max();"
        "fast = torch.compile(la, backend='eager', fullgraph=True, dynamic=True);"
        "assert torch.equal(fast(*operands(), backend='triton'), a); print('agree')"
    )
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.stdout == "agree\n", done.stderr


def test_a_state_too_large_for_the_kernel_is_left_to_pytorch(monkeypatch):
    """LRPE doubles the features of a head: 136 of them make a state of 272 rows."""
    monkeypatch.setattr(lightning, "_on_gpu", lambda x: True)
    monkeypatch.setattr(lightning, "_kernels", lambda: pytest.fail("it serves 256 at most"))
    q, k, v = (torch.randn(2, 3, d) for d in (136, 136, 24))
    state = torch.zeros(2, 3, 272, 24)
    theta, position = torch.rand(3, 1, 136), torch.tensor([4, 90])
    decode_step(q, k, v, torch.rand(3), state, theta, position)
    assert state.any()


def test_a_decode_step_with_lrpe_is_one_token_of_the_operator():
    """Rows at places of their own, beside the whole text turned and read at once."""
    q, k, v, rate = (x.double() for x in operands())
    theta = torch.rand(3, 1, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    place = torch.tensor([[4], [90]]) + torch.arange(37)
    turned = (lrpe(x, theta, place) for x in (q, k))
    expected, left = linear_attention(*turned, v, rate, return_state=True)
    state = torch.zeros(2, 3, 32, 24, dtype=torch.float64)
    for t in range(37):
        row = (x[:, :, t] for x in (q, k, v))
        o = decode_step(*row, rate, state, theta, place[:, t])
        torch.testing.assert_close(o, expected[:, :, t])
    torch.testing.assert_close(state, left)
