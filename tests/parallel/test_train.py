"""Training on two processes is training in one; a killed rank, or another mesh, changes nothing."""

import csv
import json
import sys

import pytest
import torch

from tests.parallel.setting import BYTES, QUICK, new_model
from tests.parallel.start import torchrun
from transnormer_edu import TransNormerLLM
from transnormer_edu.data import load_corpus
from transnormer_edu.parallel import checkpoints
from transnormer_edu.parallel.checkpoints import load_weights, newest
from transnormer_edu.train import Trainer

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX"),
]
RUNS = ("killed", "moved")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder with the run of one process and those of two."""
    folder = tmp_path_factory.mktemp("runs")
    book = folder / "book.txt"
    lines = [f"{i} times {i % 7} is {i * (i % 7)}, and so on to {i * i}." for i in range(300)]
    book.write_text("\n\n".join(lines))
    torch.set_default_dtype(torch.float64)
    try:
        Trainer(new_model(), BYTES, load_corpus(book), QUICK, folder / "one").run(progress=False)
    finally:
        torch.set_default_dtype(torch.float32)
    torchrun(2, "tests/parallel/training.py", book, folder, restarts=1)
    return folder


def log(folder):
    rows = csv.DictReader((folder / "log.csv").read_text().splitlines())
    numbers = [[float(v or 0) for name, v in row.items() if name != "seconds"] for row in rows]
    return torch.tensor(numbers, dtype=torch.float64)


@pytest.mark.parametrize("name", RUNS)
def test_every_step_is_that_of_one_process(runs, name):
    """Loss, learning rate, the gradient's norm, tokens, the scores on held-out text."""
    expected = log(runs / "one")
    assert len(expected) == QUICK.steps
    torch.testing.assert_close(log(runs / name), expected, rtol=1e-10, atol=1e-10)


def test_a_killed_rank_went_on_from_a_checkpoint(runs):
    """It died in step 6; the checkpoint of step 4 may still have been under way."""
    assert (runs / "killed" / "went_on_at").read_text() in ("2", "4")


@pytest.mark.parametrize("name", RUNS)
def test_the_weights_are_in_the_released_format(runs, name):
    expected = TransNormerLLM.from_pretrained(runs / "one" / "last").state_dict()
    found = TransNormerLLM.from_pretrained(runs / name / "last").state_dict()
    stored = load_weights(runs / name).state_dict()
    assert expected.keys() == found.keys() == stored.keys()
    for key, weight in expected.items():
        torch.testing.assert_close(found[key], weight, rtol=0, atol=1e-9)
        torch.testing.assert_close(stored[key].double(), weight, rtol=0, atol=1e-6)


def test_what_is_not_ours_stays_among_the_checkpoints(tmp_path):
    folder = tmp_path / checkpoints.FOLDER
    for name in ("00000001", "00000002", "00000003"):
        (folder / name).mkdir(parents=True)
        (folder / name / checkpoints.DONE).touch()
    (folder / "00000003" / checkpoints.DONE).unlink()
    (folder / ".DS_Store").touch()
    checkpoints._keep_only(folder, folder / "00000002")
    checkpoints.sweep(tmp_path)
    assert {path.name for path in folder.iterdir()} == {"00000002", ".DS_Store"}


@pytest.mark.parametrize("name", RUNS)
def test_only_whole_checkpoints_are_left(runs, name):
    (path,) = (runs / name / "checkpoints").iterdir()
    assert path == newest(runs / name)
    assert json.loads((path / "run.json").read_text())["step"] == QUICK.steps
