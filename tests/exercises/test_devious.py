"""Functions that would rather change the check, or read the answer there, than write it."""

import pytest

from transnormer_edu.exercises import Wrong, _workers, ask, by_value, check, worker
from transnormer_edu.exercises.lesson_04 import by_loop
from transnormer_edu.exercises.untouched import Shared

INSIDE = "It looks into the check, by "
CHANGED = "which everybody shares: give your own another name"
WRONG = "return 0 * v, 0 * state"
DEVIOUS = {
    "the caller's frame": (
        "frame = __import__('sys')._getframe()\n"
        "while not hasattr(frame.f_locals.get('exercise'), 'reference'): frame = frame.f_back\n"
        "return frame.f_locals['exercise'].reference(q, k, v, rate, state)",
        INSIDE + "_getframe",
    ),
    "the stack": (
        "import inspect\n"
        "for s in inspect.stack(0):\n"
        "    exercise = inspect.getargvalues(s.frame).locals.get('exercise')\n"
        "    if hasattr(exercise, 'reference'): return exercise.reference(q, k, v, rate, state)",
        INSIDE,
    ),
    "the frame of an exception": (
        f"try: 1 / 0\nexcept Exception as error: frame = error.__traceback__.tb_frame\n{WRONG}",
        INSIDE + "tb_frame",
    ),
    "everything in memory": (f"import gc\ngc.get_objects()\n{WRONG}", INSIDE + "get_objects"),
    "the table of modules": (
        "import sys\nours = sys.modules['transnormer_edu.exercises.lesson_04']\n"
        "return ours.by_loop(q, k, v, rate, state)",
        "It uses the answers of this project",
    ),
    "a name in quotes": (
        "import transnormer_edu.attention as ours\n"
        "return getattr(ours, 'linear_attention')(q, k, v, rate)",
        "It uses linear_attention of this project",
    ),
    "any": (f"torch.Tensor.any = lambda x: False\n{WRONG}", f"Tensor.any, {CHANGED}"),
    "less or equal": (
        f"torch.Tensor.__le__ = lambda x, y: torch.ones_like(x).bool()\n{WRONG}",
        f"Tensor.__le__, {CHANGED}",
    ),
    "stack": (f"torch.stack = torch.cat\n{WRONG}", f"torch.stack, {CHANGED}"),
    "next": (f"import builtins\nbuiltins.next = lambda *x: None\n{WRONG}", "builtins.next"),
    "the judge": (
        "import transnormer_edu.exercises.judge as judge\n"
        f"judge.difference = judge.gradient_difference = lambda *x: None\n{WRONG}",
        "exercises.judge.difference",
    ),
    "the tolerance": (
        "import transnormer_edu.exercises.compare as compare\n"
        f"compare.TOLERANCE[torch.float64] = (1e9, 1e9)\n{WRONG}",
        "does not support item assignment",
    ),
    "a mode": (
        "class Yes(torch.overrides.TorchFunctionMode):\n"
        "    def __torch_function__(self, operation, types, args=(), options=None):\n"
        "        if operation.__name__ == 'any': return torch.tensor(False)\n"
        "        return operation(*args, **(options or {}))\n"
        f"Yes().__enter__()\n{WRONG}",
        "PyTorch's mode",
    ),
    "a tensor that equals all others": (
        "class Equal(torch.Tensor):\n"
        "    @classmethod\n"
        "    def __torch_function__(cls, *x, **y): return torch.tensor(True)\n"
        "return (0 * v).as_subclass(Equal), (0 * state).as_subclass(Equal)",
        "it returns a Equal, expected a plain torch.Tensor",
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _no_process_is_left():
    yield
    _no_workers()


def _no_workers():
    for process in _workers:
        process.stop()
    _workers.clear()


def in_a_notebook(body: str):
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    names = {"__name__": "__main__"}
    exec(f"import torch\ndef f(q, k, v, rate, state):\n{lines}", names)
    return names["f"]


@pytest.mark.parametrize("name", DEVIOUS)
def test_the_check_says_what_was_tried(name):
    body, said = DEVIOUS[name]
    with pytest.raises(Wrong) as wrong:
        check("4.4", in_a_notebook(body))
    assert said in str(wrong.value)


def test_a_hand_in_cannot_bring_a_judge_of_its_own(tmp_path):
    """Nor does a file that is called like a module of Python's disturb a right answer."""
    package = tmp_path / "transnormer_edu" / "exercises"
    package.mkdir(parents=True)
    for file in (package.parent / "__init__.py", package / "__init__.py", tmp_path / "nt.py"):
        file.write_text("raise SystemExit\n")
    (package / "worker.py").write_text(
        "import pickle, sys\n"
        "say = lambda what: (pickle.dump(what, sys.stdout.buffer), sys.stdout.buffer.flush())\n"
        "say(('', 'ready'))\n"
        "while True: say((pickle.load(sys.stdin.buffer)[0], ('right', 'all of it')))\n"
    )
    workers = []
    with pytest.raises(Wrong, match="It looks as if|expected"):
        ask("4.4", by_value("4.4", in_a_notebook(WRONG)), 0, workers, str(tmp_path))
    assert ask("4.4", by_value("4.4", by_loop), 0, workers, str(tmp_path)) == "Decay as a loop"
    for process in workers:
        process.stop()


@pytest.mark.parametrize("forks", [True, False])
def test_who_answers_in_the_checks_place_is_not_believed(forks, monkeypatch):
    if forks and not worker.FORKS:
        pytest.skip("only Linux forks")
    monkeypatch.setattr(worker, "FORKS", forks)
    _no_workers()
    lie = (
        "import os, pickle\n"
        "for place in range(3, 64):\n"
        "    for said in (('right', 'x'), ('', ('right', 'x')), ('0', ('right', 'x'))):\n"
        "        try: os.write(place, pickle.dumps(said))\n"
        "        except OSError: pass\n"
        "os._exit(0)"
    )
    with pytest.raises(Exception, match="could not be checked|NOT|ended") as said:
        check("4.4", in_a_notebook(lie))
    assert "is right" not in str(said.value)
    _no_workers()


def test_a_number_that_equals_all_others():
    class Equal(float):
        def __eq__(self, other):
            return True

        __hash__ = float.__hash__

    with pytest.raises(Wrong, match="seconds is a Equal, expected a float"):
        check("7.1", lambda *x: (Equal(), True))


def test_all_is_put_back():
    import torch

    shared, stack = Shared(), torch.stack
    torch.stack, torch.Tensor.any = None, None
    assert shared.put_back() in ("torch.stack", "Tensor.any")
    assert torch.stack is stack and torch.tensor([True]).any()
    assert shared.put_back() is None
