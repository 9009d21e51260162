"""Kernels as answers: they travel by value, errors are said plainly, and a GPU would take them."""

import inspect
import linecache
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch

from transnormer_edu.exercises import Wrong, _workers, check, kernel
from transnormer_edu.exercises.catalog import find
from transnormer_edu.exercises.judge import judge
from transnormer_edu.exercises.proof import prove_one
from transnormer_edu.resources import compile_job, resources

needs_triton = pytest.mark.skipif(not kernel.has_triton(), reason="Triton has wheels for Linux")
SOLUTION = Path(__file__).parents[2] / "notebooks" / "solutions" / "08_exercises.ipynb"


@pytest.fixture(autouse=True)
def _no_process_is_left():
    yield
    for process in _workers:
        process.stop()
    _workers.clear()


def cells() -> str:
    notebook = nbformat.read(SOLUTION, as_version=4)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return "\n\n\n".join(source for source in code if not source.startswith("check("))


def of_a_notebook(source: str) -> dict:
    """What cells with this source define; their lines are known to this process alone."""
    name = f"a cell {hash(source)}"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    names = {"__name__": "__main__"}
    exec(compile(source, name, "exec"), names)
    return names


def changed(old: str, new: str) -> dict:
    source = cells()
    assert old in source
    return of_a_notebook(source.replace(old, new, 1))


@needs_triton
def test_a_kernel_of_a_notebook_travels(capsys):
    for number, name in (("8.2", "fade_kernel"), ("8.3", "carry_kernel"), ("8.4", "chunks_kernel")):
        check(number, of_a_notebook(cells())[name])
        assert capsys.readouterr().out.startswith(f"{number} is right")


@needs_triton
def test_a_kernel_travels_with_its_helpers():
    helper = "@triton.jit\ndef left(rate, t):\n    return tl.exp(-rate * t)\n\n\n"
    source = cells().replace("x * tl.exp(-rate * t)", "x * left(rate, t)")
    head, rest = source.split("\n@triton.jit", 1)
    check("8.2", of_a_notebook(f"{head}\n{helper}@triton.jit{rest}")["fade_kernel"])


@needs_triton
def test_a_kernel_made_for_a_gpu_is_interpreted_all_the_same(tmp_path):
    """On a machine with a GPU the notebook's kernel is Triton's compiled kind."""
    script = tmp_path / "cell.py"
    ours = "from transnormer_edu.exercises.interpreter import tl, triton"
    theirs = "import triton\nimport triton.language as tl"
    asked = 'print(type(fade_kernel).__name__)\ncheck("8.2", fade_kernel)\n'
    script.write_text(f"{cells().replace(ours, theirs)}\n{asked}", encoding="utf-8")
    clean = {name: x for name, x in os.environ.items() if name != "TRITON_INTERPRET"}
    ran = subprocess.run([sys.executable, script], env=clean, capture_output=True, text=True)
    assert ran.stdout == "JITFunction\n8.2 is right: A kernel that fades\n", ran.stderr


@needs_triton
def test_what_a_kernel_does_wrong_is_said():
    load, store = "x = tl.load(x_ptr", "tl.store(y_ptr"
    for old, new, said in (
        (", mask=here)", ")", "it writes beyond y.*\nIt looks as if there is no mask at all"),
        (store, "tl.store(x_ptr", "it writes into x, which is an input"),
        (load, "x = tl.lode(x_ptr", "in line 7 it raised AttributeError"),
        ("-rate * t)", "-3 * rate * t)", "expected .* numbers are wrong"),
        ("    t = tl.program_id(0)", "    return\n    t = tl.program_id(0)", "is nan, expected"),
    ):
        assert re.search(said, judge(find("8.2"), changed(old, new)["fade_kernel"]))
    assert "it is no kernel: a kernel uses tl" in judge(find("8.2"), lambda x, rate: x)


@needs_triton
@pytest.mark.parametrize(
    "number, masked, right",
    [
        ("8.2", "mask=here", True),  # what is hidden is not stored
        ("8.3", "q_ptr + t * DK + i, mask=i < DK", False),
        ("8.4", "mask=(t < n) & (c < DV)", False),
    ],
)
def test_what_a_mask_hides_is_no_number(number, masked, right):
    kernel = changed(f"{masked}, other=0.0)", f"{masked})")[find(number).function]
    said = judge(find(number), kernel)
    assert (said is None) is right, said


HARMLESS = {
    "8.2": (
        "x = tl.load(x_ptr + t * d + i, mask=here, other=0.0)",
        "x = tl.load(x_ptr + t * d + i)",
    ),
    "8.3": (
        "v = tl.load(v_ptr + t * DV + c, mask=c < DV",
        "v = tl.load(v_ptr + t * DV + c, mask=c < DV_TILE",
    ),
    "8.4": ("i, mask=(t < n) & (i < DK), other=0.0)", "i, mask=i < DK, other=0.0)"),
}


@needs_triton
@pytest.mark.parametrize("number", HARMLESS)
def test_what_is_read_beyond_a_tensor_and_not_used_is_found(number):
    kernel = changed(*HARMLESS[number])[find(number).function]
    assert judge(find(number), kernel) is None  # no number is wrong
    with pytest.raises(Wrong, match="reads or writes beyond a tensor"):
        check(number, kernel)


@needs_triton
def test_a_stub_is_still_to_be_written():
    stub = of_a_notebook(
        "from transnormer_edu.exercises.interpreter import tl, triton\n\n\n@triton.jit\n"
        "def chunks_kernel(q, k, v, rate, o, last, n, DK: tl.constexpr, DV: tl.constexpr,\n"
        "    DK_TILE: tl.constexpr, DV_TILE: tl.constexpr, CHUNK: tl.constexpr):\n"
        '    raise NotImplementedError("return o; tl.dot")\n'
    )
    assert "this is still to be written: return o" in judge(find("8.4"), stub["chunks_kernel"])


def test_without_triton_it_is_one_sentence(monkeypatch):
    module = sys.modules[judge.__module__]
    monkeypatch.setattr(module, "has_triton", lambda: False)
    for number in ("8.2", "8.4"):
        said = judge(find(number), lambda *pointers: None)
        assert said.startswith("This needs Triton, which there is for Linux alone")
        assert "\n" not in said
    assert judge(find("8.1"), find("8.1").reference) is None


def test_without_triton_a_kernel_is_not_proved(monkeypatch):
    from transnormer_edu.exercises import proof

    monkeypatch.setattr(proof, "has_triton", lambda: False)
    row = prove_one(find("8.3"))
    assert row.faults == () and str(row).endswith("not run: it needs Triton")
    assert prove_one(find("8.1")).when_right == "all caught and named"


@needs_triton
def test_a_kernel_is_proved_after_pytorch_has_imported_triton():
    program = (
        "import sys\n"
        "from transnormer_edu.exercises.catalog import find\n"
        "from transnormer_edu.exercises.proof import prove_one\n"
        "prove_one(find('11.5'), [0])\n"
        "print('triton' in sys.modules, prove_one(find('8.2'), [0]).faults)"
    )
    clean = {name: x for name, x in os.environ.items() if name != "TRITON_INTERPRET"}
    ran = subprocess.run([sys.executable, "-c", program], env=clean, capture_output=True, text=True)
    assert ran.stdout == "True ()\n", ran.stderr


def test_without_triton_a_kernel_can_be_written_down():
    program = (
        "import sys; sys.modules['triton'] = None\n"
        "from transnormer_edu.exercises.interpreter import tl, triton\n"
        "@triton.jit\ndef f(x_ptr, n: tl.constexpr): pass\n"
        "print(f.__name__)"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.stdout == "f\n", ran.stderr


def test_fences():
    x = kernel.fenced(torch.arange(6.0).view(2, 3), kernel.ODD)
    assert kernel.fence_holds(x) and x.tolist() == [[0, 1, 2], [3, 4, 5]]
    for place in (-1, 6):
        broken = kernel.fenced(x, kernel.ODD)
        torch.empty(0).set_(broken.untyped_storage())[kernel.FENCE + place] = 1
        assert not kernel.fence_holds(broken)


@needs_triton
def test_the_answers_compile_for_a_gpu():
    names = of_a_notebook(cells())
    sizes = dict(DK=19, DV=21, DK_TILE=32, DV_TILE=32)
    jobs = [
        compile_job(names["fade_kernel"], {"rate": "fp32"}, ROWS=4, COLS=8),
        compile_job(names["carry_kernel"], **sizes),
        compile_job(names["chunks_kernel"], **sizes, CHUNK=16),
    ]
    assert all(inspect.getsource(names[job["kernel"]].fn) in job["text"] for job in jobs)
    assert [found.refused for found in resources(jobs)] == ["", "", ""]
