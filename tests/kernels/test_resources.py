"""What the compiler says of a kernel, for a GPU that is not here."""

import pytest

from tests.kernels.small_kernels import product_kernel, scale_kernel
from transnormer_edu.resources import SHARED_LIMIT, Resources, compile_job, resources


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def test_larger_blocks_need_more_until_they_do_not_fit():
    jobs = [compile_job(product_kernel, dtype="bf16", SIZE=size) for size in (8, 32, 64, 256)]
    refused, small, middle, large = resources(jobs)
    assert "K >= 16" in refused.refused
    assert not refused.fits
    assert small.fits and middle.fits
    assert small.registers < middle.registers and small.shared < middle.shared
    assert large.spilled > 0 and not large.fits


def test_a_thread_of_fewer_holds_more():
    few, many = resources([compile_job(product_kernel, SIZE=32, warps=w) for w in (1, 4)])
    assert few.registers > many.registers


def test_types_by_name_and_by_hand():
    """An argument of the wrong kind does not compile: a pointer is no factor."""
    strides = ["i32", "i32"]
    right, wrong = resources(
        [
            compile_job(scale_kernel, {"factor": kind, "strides": strides}, BLOCK=128)
            for kind in ("fp32", "*fp32")
        ]
    )
    assert right.fits
    assert wrong.refused


@pytest.mark.parametrize(
    "needs, fits",
    [
        (Resources(registers=255, spilled=0, shared=SHARED_LIMIT), True),
        (Resources(registers=255, spilled=4, shared=0), False),
        (Resources(registers=1, spilled=0, shared=SHARED_LIMIT + 1), False),
        (Resources(refused="no"), False),
    ],
)
def test_what_fits(needs, fits):
    assert needs.fits is fits


def test_a_failing_process_says_why():
    job = compile_job(product_kernel, SIZE=32)
    with pytest.raises(RuntimeError, match="SyntaxError"):
        resources([job | {"text": "def"}])
