"""Every mesh of 2 and of 4 processes gives the numbers of one, in float64."""

import json

import pytest

from tests.parallel.equal import CASES, shapes
from tests.parallel.start import torchrun

BOUND = 1e-10
RUNS = [
    (world, shape, case, exchange)
    for world in (2, 4)
    for shape in shapes(world)
    for case, exchange in [*((c, "ring") for c in CASES), ("plain", "gather")]
    if exchange == "ring" or shape.sequence > 1
]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What each of the two jobs found, by world size: a job runs through all its meshes."""
    found = {}

    def of(world):
        if world not in found:
            path = tmp_path_factory.mktemp("equal") / "results.json"
            torchrun(world, "tests/parallel/equal.py", path, seconds=400)
            found[world] = json.loads(path.read_text())
        return found[world]

    return of


def pick(results, shape, case, exchange):
    """The results of all processes of one run."""
    wanted = (shape.data, shape.sequence, shape.tensor, case, exchange)
    keys = ("data", "sequence", "tensor", "case", "exchange")
    (one,) = [run for run in results if tuple(run[0][key] for key in keys) == wanted]
    assert len(one) == shape.processes
    return one


@pytest.mark.parametrize("world, shape, case, exchange", RUNS)
def test_many_processes_are_one(results, world, shape, case, exchange):
    for process in pick(results(world), shape, case, exchange):
        for what in ("logits", "loss", "gradients", "norm", "weights"):
            assert process[what] < BOUND, what


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
                short, long = process["sent"], process["sent, twice the length"]
                for kind in ("send", "receive", "all-gather", "reduce-scatter"):
                    assert short.get(kind) == long.get(kind), (kind, process)
                if process["tensor"] > 1:
                    assert long["all-reduce"] > 1.9 * short["all-reduce"]
