"""The rungs of lesson 08: each check passes, and fails on a copy of its rung with one line broken.

The rungs are taken from the notebook: the cells that bear a rung's tag are a program of their own.
"""

import ast
import runpy
from pathlib import Path

import nbformat
import pytest
import torch

from transnormer_edu.resources import SHARED_LIMIT, compile_job, resources

LESSON = Path(__file__).parents[2] / "notebooks" / "08_kernel.ipynb"
CELLS = nbformat.read(LESSON, as_version=4).cells
RUNGS = range(1, 9)
LINES = 25  # of a kernel, at most

# rung, a part of one line of its kernel or of its launch, what stands there instead
BROKEN = [
    (1, "copy_kernel[(3,)]", "copy_kernel[(4,)]"),  # writes the input's fence over its own
    (1, "random(12)", "random(10)"),  # the same, from the last of three programs
    (1, "tl.program_id(0) * BLOCK + ", ""),
    (1, "y_ptr + row", "y_ptr + row + 1"),
    (2, "t * D +", "t * BLOCK +"),
    (2, "tl.exp(-rate * t)", "tl.exp(-rate)"),
    (3, "t * DK * DV +", "t * DV +"),
    (3, "i[:, None] * DV", "i[:, None] * DK"),
    (4, "tl.exp(-rate) * state + k[:, None]", "state + k[:, None]"),
    (
        4,
        "state = tl.exp(-rate) * state + k[:, None] * v[None, :]",
        "state = k[:, None] * v[None, :]",
    ),
    (5, "gap >= 0", "gap > 0"),
    (5, "gap >= 0", "rate * gap >= 0"),  # lesson 04: the future comes through where rate is 0
    (5, "gap = t[:, None] - t[None, :]\n    mask", "gap = t[None, :] - t[:, None]\n    mask"),
    (5, "tl.where(gap >= 0, tl.exp(-rate * gap), 0.0)", "tl.where(gap >= 0, 1.0, 0.0)"),
    (6, "gap >= 0", "rate * gap >= 0"),
    (6, "-rate * (j + 1)", "-rate * j"),  # the index trap: Λ from 0
    (6, "CHUNK - 1 - j", "CHUNK - j"),
    (6, "tl.exp(-rate * CHUNK) * state", "state"),
    (7, "gap >= 0", "rate * gap >= 0"),
    (7, "live = tl.minimum(n - row, CHUNK)", "live = CHUNK"),
    (7, "tl.maximum(live - 1 - j, 0)", "(live - 1 - j)"),  # 0 times infinity
    (7, "k = tl.load(k_ptr + t * DK + i, mask=(t < n) &", "k = tl.load(k_ptr + t * DK + i, mask="),
    (
        7,
        "q = tl.load(q_ptr + t * DK + i, mask=(t < n) & (i < DK)",
        "q = tl.load(q_ptr + t * DK + i, mask=t < n",
    ),
    (7, "o, mask=(t < n) & (c < DV)", "o, mask=c < DV"),  # writes beyond the last row
    (7, "o, mask=(t < n) & (c < DV)", "o, mask=t < n"),
    (7, "state, mask=(i < DK) & (c < DV)", "state, mask=c < DV"),
    (8, "h * strides[1]", "h"),
    (8, "i * strides[3]", "i * strides[2]"),
    (8, "j[:, None] >= j[None, :]", "rate * (j[:, None] - j[None, :]) >= 0"),
    (8, "tl.program_id(0) % heads", "tl.program_id(0) // heads"),
    (8, "rate_ptr + h", "rate_ptr"),
    (8, "tl.program_id(1) * DV_TILE + ", ""),
    (8, "tl.maximum(age, 0)", "age"),
    (8, "live = tl.minimum(n - row, CHUNK)", "live = CHUNK"),
]


def cells_of(rung):
    tag = f"rung-{rung}"
    return [cell.source for cell in CELLS if tag in cell.metadata.get("tags", ())]


def climb(rung, folder, part=None, instead=None):
    """Run the rung's cells; with one line of its kernel, the one with `part` in it, broken."""
    text = "\n\n\n".join(cells_of(rung)) + "\n"
    if part is not None:
        assert text.count(part) == 1, f"{part!r} stands {text.count(part)} times in rung {rung}"
        text = text.replace(part, instead)
    path = folder / f"rung_{rung}.py"  # Triton reads a kernel's source from its file
    path.write_text(text, encoding="utf-8")
    return runpy.run_path(str(path), run_name="__main__")


@pytest.mark.parametrize("rung", RUNGS)
def test_the_rung_passes_its_check(rung, tmp_path, capsys):
    climb(rung, tmp_path)
    assert f"rung {rung}, " in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy says so when a broken copy overflows
@pytest.mark.parametrize("rung, part, instead", BROKEN)
def test_the_check_fails_on_a_broken_rung(rung, part, instead, tmp_path):
    with pytest.raises(AssertionError) as failure:
        climb(rung, tmp_path, part, instead)
    assert "stands" not in str(failure.value)


def test_a_last_chunk_that_passes_whole_spoils_the_state_alone(tmp_path):
    with pytest.raises(AssertionError, match=r"item \[1\]"):  # item 0: the outputs
        climb(7, tmp_path, "live = tl.minimum(n - row, CHUNK)", "live = CHUNK")


@pytest.mark.parametrize("place", [-1, 12])  # just before, just after
@pytest.mark.parametrize("written", [float("nan"), 0.0])
def test_whoever_writes_over_the_fence_of_a_result_is_seen(place, written, tmp_path):
    """NaN too: it is what a program finds in the fence of its input."""
    names = climb(1, tmp_path)
    result = names["blank"](12)
    assert names["fence_holds"](result)
    torch.empty(0).set_(result.untyped_storage())[names["FENCE"] + place] = written
    assert not names["fence_holds"](result)


def test_every_rung_has_a_broken_copy():
    assert {rung for rung, *_ in BROKEN} == set(RUNGS)


@pytest.mark.parametrize("rung", RUNGS)
def test_kernels_are_short(rung):
    """From the decorator to the last line."""
    kernels = [
        function
        for source in cells_of(rung)
        for function in ast.parse(source).body
        if isinstance(function, ast.FunctionDef) and function.decorator_list
    ]
    assert kernels
    assert all(f.end_lineno - f.decorator_list[0].lineno < LINES for f in kernels)


# What the checks of the lesson launch, where there is a GPU: rung, kernel, types, constants.
LAUNCHED = [
    (1, "copy_kernel", {}, {"BLOCK": 4}),
    (2, "decay_kernel", {"rate": "fp32"}, {"BLOCK": 4, "D": 8}),
    (3, "outer_kernel", {}, {"DK": 4, "DV": 8}),
    (4, "carry_kernel", {"rate": "fp32"}, {"DK": 1, "DV": 1}),
    (4, "carry_kernel", {"rate": "fp32"}, {"DK": 4, "DV": 8}),
    (5, "chunk_kernel", {"rate": "fp32"}, {"DK": 16, "DV": 64, "CHUNK": 32}),
    (6, "chunks_kernel", {"rate": "fp32"}, {"DK": 16, "DV": 32, "CHUNK": 16}),
    (7, "ragged_kernel", {"rate": "fp32"}, {"DK": 19, "DV": 21, "DK_TILE": 32, "DV_TILE": 32}),
    (8, "heads_kernel", {}, {"DK": 19, "DV": 21, "DK_TILE": 32, "DV_TILE": 16}),
]


def test_what_the_lesson_launches_also_compiles(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    jobs = []
    for rung, name, types, constants in LAUNCHED:
        names = climb(rung, tmp_path)
        helpers = [names["place"], names["power"]] if rung == 8 else []
        if rung > 6:
            constants = {**constants, "CHUNK": 16}
        jobs.append(compile_job(names[name], types, helpers=helpers, **constants))
    for job, found in zip(jobs, resources(jobs), strict=True):
        assert not found.refused, (job["kernel"], found)
        assert found.shared <= SHARED_LIMIT
