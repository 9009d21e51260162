"""Every mesh of 2 and of 4 processes gives the numbers of one, in float64."""

import json
from functools import cache, partial

import pytest

from tests.parallel.equal import runs, shapes
from tests.parallel.start import torchrun

BOUND = 1e-10
RUNS = [(world, *run) for world in (2, 4) for run in runs(world, every_case=False)]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What a job found, by the number of its processes: a job runs through all its meshes."""
    return cache(partial(_results, tmp_path_factory))


def _results(tmp_path_factory, world, which=""):
    path = tmp_path_factory.mktemp("equal") / "results.json"
    torchrun(world, "tests/parallel/equal.py", path, which)
    return json.loads(path.read_text())


def pick(results, shape, case, exchange):
    """The results of all processes of one run."""
    wanted = (shape.data, shape.sequence, shape.tensor, case, exchange)
    keys = ("data", "sequence", "tensor", "case", "exchange")
    (one,) = [run for run in results if tuple(run[0][key] for key in keys) == wanted]
    assert len(one) == shape.processes
    return one


def check_equal(processes):
    for process in processes:
        for what in ("logits", "loss", "gradients", "norm", "weights"):
            assert process[what] < BOUND, (what, process)


@pytest.mark.parametrize("world, shape, case, exchange", RUNS)
def test_many_processes_are_one(results, world, shape, case, exchange):
    check_equal(pick(results(world), shape, case, exchange))


@pytest.mark.slow
def test_every_case_on_every_mesh(results):
    found = results(4, "all")
    assert len(found) == len(list(runs(4, every_case=True)))
    for processes in found:
        check_equal(processes)


@pytest.mark.parametrize("world, shape", [(w, s) for w in (2, 4) for s in shapes(w)])
def test_what_is_sent(results, world, shape):
    """One state each way per layer, whatever the length; one sum each way per mixer."""
    ring = pick(results(world), shape, "plain", "ring")
    heads, rows = 4 // shape.tensor, 4 // shape.data
    states = rows * heads * 8 * (3 * 3 + 2 * (2 * 3 * 3))  # three layers, two of them with LRPE
    last = shape.sequence - 1
    for process in ring:
        where = process["at"]["sequence"]
        assert process["sent"].get("send", 0) == states * ((where < last) + (where > 0))
        assert process["sent"].get("receive", 0) == process["sent"].get("send", 0)
        sums = process["times"].get("all-reduce", 0)
        # Forward: the embedding, two mixers and a norm per layer, the loss (3 for one piece of
        # words, 2 of totals); backward: two mixers and a norm per layer.
        assert sums == 2 + (1 + 3 * 3 + 3 + 3 * 3 if shape.tensor > 1 else 0)


def test_messages_do_not_grow_with_the_length(results):
    """Weights and states do not; what tensor ranks sum up is one row per token."""
    for run in results(2) + results(4):
        if run[0]["case"] == "plain":
            for process in run:
                short, long = process["sent"], process["sent, longer"]
                for kind in ("send", "receive", "all-gather", "reduce-scatter"):
                    assert short.get(kind) == long.get(kind), (kind, process)
                if process["tensor"] > 1:
                    assert long["all-reduce"] > 1.9 * short["all-reduce"]
