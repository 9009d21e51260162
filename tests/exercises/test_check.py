"""The public check: in a process of its own, which stays warm and can be killed."""

import os
import subprocess
import sys
import time
from typing import NamedTuple

import pytest
import torch

from transnormer_edu.exercises import Wrong, _workers, check, worker
from transnormer_edu.exercises.catalog import find
from transnormer_edu.exercises.lesson_04 import by_loop

both = pytest.mark.parametrize("forks", [True, False], indirect=True)


@pytest.fixture
def forks(request, monkeypatch):
    """Each check in a fork, as on Linux, or all in one process, as elsewhere."""
    if request.param and not worker.FORKS:
        pytest.skip("only where checks are forks")
    monkeypatch.setattr(worker, "FORKS", request.param)


@pytest.fixture(autouse=True)
def _no_process_is_left():
    yield
    for process in _workers:
        process.stop()
    _workers.clear()


def in_a_notebook(source: str):
    """The function `f` as a notebook defines it: in __main__, travelling by value."""
    names = {"__name__": "__main__"}
    exec(source, names)
    return names["f"]


def test_right_and_wrong(capsys):
    check("4.4", by_loop)
    assert capsys.readouterr().out == "4.4 is right: Decay as a loop\n"
    with pytest.raises(Wrong, match="It looks as if q and k are swapped"):
        check("4.4", find("4.4").mistakes["q and k are swapped"])


def test_a_function_of_a_notebook_with_its_helpers(capsys):
    source = """
import math
two = 2
def helper(tokens):
    return math.log(two) / tokens
def f(tokens):
    print("looking at", tokens)   # must not disturb anything
    return helper(tokens)
"""
    check("4.1", in_a_notebook(source))
    assert capsys.readouterr().out.startswith("4.1 is right")


def test_the_process_stays_warm():
    check("4.1", by_log)
    first = _workers[0].process.pid
    started = time.perf_counter()
    check("4.1", by_log)
    assert time.perf_counter() - started < 5  # well below 0.1 s on a quiet machine
    assert _workers[0].process.pid == first


def by_log(tokens):
    import math

    return math.log(2) / tokens


def poisoned(change):
    """Does what `change` says to PyTorch, then answers wrongly."""
    source = f"""
import torch
def f(q, k, v, rate, state):
    {change}
    return q, state
"""
    return in_a_notebook(source)


@both
@pytest.mark.parametrize("change", ["torch.set_default_device('meta')", "torch.stack = None"])
def test_what_one_function_changes_in_pytorch_does_not_reach_the_next(forks, change):
    with pytest.raises(Wrong):
        check("4.4", poisoned(change))
    check("4.4", by_loop)


def test_a_right_answer_may_move_the_default_device():
    def moves(tokens):
        import math

        import torch

        torch.set_default_device("meta")
        return math.log(2) / tokens

    check("4.1", moves)
    check("4.4", by_loop)


def test_an_unwritten_function_keeps_the_process():
    def stub(tokens):
        raise NotImplementedError("return rate")

    check("4.1", by_log)
    first = _workers[0].process.pid
    with pytest.raises(Wrong, match="still to be written"):
        check("4.1", stub)
    assert _workers[0].process.pid == first


def test_an_optimiser_is_there_before_the_first_question():
    """Making one imports torch._dynamo: a second, which is not the student's."""
    source = """
import sys
def f(*inputs):
    raise RuntimeError("torch._dynamo" in sys.modules)
"""
    with pytest.raises(Wrong, match="RuntimeError: True"):
        check("11.5", in_a_notebook(source))


def test_no_check_imports_the_compiler_half_way():
    """torch._dynamo takes two seconds of the processor: all that a function has."""
    script = """
import sys
from transnormer_edu.exercises.catalog import every
from transnormer_edu.exercises.judge import judge
from transnormer_edu.exercises.worker import warm_up

for exercise in sorted(every(), key=lambda e: e.number.startswith("11.")):  # which has it anyway
    warm_up(exercise.number)
    before = "torch._dynamo" in sys.modules
    judge(exercise, exercise.reference)
    if ("torch._dynamo" in sys.modules) != before:
        sys.exit(f"judging {exercise.number} imported torch._dynamo")
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_a_lambda_can_be_printed_on_every_system(monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")
    monkeypatch.setenv("PYTHONUTF8", "0")
    source = """
import math
def f(tokens):
    print("λ", tokens)
    return math.log(2) / tokens
"""
    check("4.1", in_a_notebook(source))


def test_a_number_may_come_without_quotes(capsys):
    check(4.1, by_log)
    assert capsys.readouterr().out.startswith("4.1 is right")


def forever(*inputs):
    while True:
        pass


@both
@pytest.mark.parametrize(
    ("hangs", "said"),
    [
        (forever, "no answer after 2 s: does a loop never end"),
        (lambda *inputs: time.sleep(60), "for 3 s it did nothing: does it wait for something"),
    ],
)
def test_what_never_ends_is_ended(forks, hangs, said):
    check("4.1", by_log)
    started = time.perf_counter()
    with pytest.raises(Wrong, match=said):
        check("4.4", hangs)
    assert time.perf_counter() - started < 9
    check("4.1", by_log)


def test_one_long_operation_is_ended():
    """Python lets nothing else run meanwhile; Linux still counts."""
    if not worker.FORKS:
        pytest.skip("only where checks are forks")
    with pytest.raises(Wrong, match="no answer after 2 s: does a loop never end"):
        check("4.4", lambda *inputs: sum(range(10**12)))


def test_all_of_a_check_has_an_end(monkeypatch):
    """Slowly, so that it neither computes for long nor does nothing."""

    def slowly(*inputs):
        while True:
            time.sleep(0.1)
            sum(range(10**6))

    monkeypatch.setattr(worker, "SECONDS", 1.0)
    with pytest.raises(Wrong, match="no answer after 1 s: does a loop never end"):
        check("4.4", slowly)


def test_a_wrong_answer_or_a_crash_costs_no_process():
    if not worker.FORKS:
        pytest.skip("only where checks are forks")
    check("4.1", by_log)
    first = _workers[0].process.pid
    for wrong in (lambda tokens: tokens, lambda tokens: os._exit(3), forever):
        with pytest.raises(Wrong):
            check("4.1", wrong)
    check("4.1", by_log)
    assert _workers[0].process.pid == first


@both
def test_a_crash_ends_nothing_else(forks):
    with pytest.raises(Wrong, match="ended the whole Python process"):
        check("4.1", lambda tokens: os._exit(3))
    check("4.1", by_log)


def test_a_worker_that_was_killed_is_replaced():
    check("4.1", by_log)
    _workers[0].process.kill()
    _workers[0].process.wait()
    check("4.1", by_log)


def test_a_named_tuple_is_a_tuple():
    class Both(NamedTuple):
        o: torch.Tensor
        state: torch.Tensor

    def loop(q, k, v, rate, state):
        o, keep = torch.zeros_like(v), torch.exp(-rate)[:, None, None]
        for t in range(q.shape[2]):
            state = keep * state + k[:, :, t, :, None] * v[:, :, t, None, :]
            o[:, :, t] = (q[:, :, t, None, :] @ state)[:, :, 0]
        return o, state

    check("4.4", lambda *given: Both(*loop(*given)))
    with pytest.raises(Wrong, match="it returns a sparse tensor"):
        check("4.4", lambda *given: tuple(x.to_sparse() for x in loop(*given)))


@pytest.mark.bad_input
def test_what_cannot_be_checked():
    with pytest.raises(ValueError, match=r"there is no exercise '4.9'; there are 4.1, 4.2"):
        check("4.9", by_log)
    with pytest.raises(Wrong, match="got a float, expected your function itself"):
        check("4.1", 0.5)
    with open(__file__) as file, pytest.raises(Wrong, match="cannot be handed to the process"):
        check("4.1", in_a_notebook_with(file))


def in_a_notebook_with(file):
    function = in_a_notebook("def f(tokens):\n    return file.name")
    function.__globals__["file"] = iter([file]), (x for x in ())  # a generator cannot travel
    return function


def test_another_seed_draws_other_sizes():
    from transnormer_edu.exercises.catalog import find
    from transnormer_edu.exercises.draw import Draw

    first, again, other = (next(iter(find("4.4").cases(Draw(seed)))).what for seed in (0, 0, 1))
    assert first == again != other
    check("4.4", by_loop, seed=1)
