"""`torchrun -m transnormer_edu train`: a run that changes its mesh; what is said of bad input."""

import csv
import json
import re
import shutil

import pytest
import torch
import torch.distributed as dist
from typer.testing import CliRunner

from tests.parallel.start import torchrun
from transnormer_edu import TransNormerLLM
from transnormer_edu.cli import app
from transnormer_edu.parallel.checkpoints import load_weights, newest
from transnormer_edu.prepare import prepare

SMALL = [
    "--vocab-size", "259", "--dim", "18", "--layers", "2", "--heads", "2", "--glu-dim", "22",
    "--steps", "5", "--batch-size", "2", "--context", "34", "--eval-every", "2", "--device", "cpu",
    "--save-every", "2", "--warmup", "2",
]  # fmt: skip
STEP_2 = "checkpoints/00000002"


def transnormer(*arguments):
    return CliRunner().invoke(app, [str(one) for one in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """one: a run of one process; two: the same run on a mesh of two, until step 2."""
    folder = tmp_path_factory.mktemp("command")
    lines = [f"{i} times {i % 7} is {i * (i % 7)}, and so on to {i * i}." for i in range(150)]
    (folder / "book.txt").write_text("\n\n".join(lines))
    new = ["train", "--data", folder / "book.txt", *SMALL]
    done = transnormer(*new, "--out", folder / "one")
    assert done.exit_code == 0, done.output
    done = torchrun(
        2, "transnormer_edu", *new, "--out", folder / "two", "--tensor-parallel", 2,
        "--recompute", "--until", 2, module=True,
    )  # fmt: skip
    prepare([folder / "book.txt"], folder / "prepared", vocab_size=259)
    assert done.stdout.count("data 1 x sequence 1 x tensor 2 processes") == 1
    assert done.stdout.count("held out: ") == 1
    assert done.stdout.count("ended at step 2, train --from goes on") == 1
    return folder


@pytest.fixture(autouse=True)
def alone():
    """A command that failed in this process leaves its job of one behind."""
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def commands(folder, *lists):
    """What both processes of a job saw of each: (status, stdout, stderr, crash)."""
    listed = [[str(one) for one in arguments] for arguments in lists]
    (folder / "commands.json").write_text(json.dumps(listed))
    torchrun(2, "tests/parallel/commands.py", folder)
    return zip(*(json.loads((folder / f"seen{rank}").read_text()) for rank in (0, 1)), strict=True)


def losses(run):
    rows = csv.DictReader((run / "log.csv").read_text().splitlines())
    return torch.tensor([float(row["loss"]) for row in rows])


def damaged(run, copy, damage):
    shutil.copytree(run, copy)
    damage(copy / STEP_2)
    return copy


def cut_short(checkpoint):
    for part in checkpoint.glob("*.distcp"):
        part.write_bytes(part.read_bytes()[:100])


def bad_input(folder):
    """Arguments, and the sentence that all of the job's processes have to find."""
    new = ["train", "--data", folder / "book.txt", *SMALL, "--out", folder / "never"]
    two, softmax = folder / "two", ["--kind", "softmax", "--dim", 20]
    no_notes = damaged(two, folder / "no notes", lambda one: (one / "run.json").unlink())
    short = damaged(two, folder / "short", cut_short)
    return [
        ([*new, "--tensor-parallel", 3], "tensor 3 makes 3 processes, and this job has 2"),
        ([*new, "--tensor-parallel", 0], "tensor parallel is 0"),
        ([*new, "--sequence-parallel", 2, "--context", 33], "context is 33, which 2 sequence"),
        ([*new, "--batch-size", 3], "batch_size is 3, which 2 data ranks"),
        ([*new, "--tensor-parallel", 2, "--heads", 3], "heads is 3, which 2 tensor ranks"),
        ([*new, "--tensor-parallel", 2, *softmax], "only a TransNormerLLM can be"),
        ([*new[:-1], folder / "nine", "--until", 9], "until is 9, expected a step from 1 to 5"),
        ([*new, "--device", "gpu"], "device is 'gpu', expected auto or cpu"),
        (["train", "--data", folder / "no.txt", *SMALL], "no.txt"),
        ([*new[:-1], two], "already holds a training run: go on with it"),
        (["train", "--from", two, "--steps", 1], "steps is 1 and"),
        (["train", "--from", two, "--dim", 8], "--dim is settled by"),
        (["train", "--from", folder / "none"], "none"),
        (["train", "--from", no_notes], "is damaged"),
        (["train", "--from", short], "is damaged"),
    ]


@pytest.mark.bad_input
def test_all_processes_find_the_same_fault(folder):
    """None is left waiting; it is one sentence; nothing is begun."""
    cases = bad_input(folder)
    for (arguments, sentence), seen in zip(
        cases, commands(folder, *(arguments for arguments, _ in cases)), strict=True
    ):
        for status, _, said, crash in seen:
            assert (status, crash) == (1, "None"), (arguments, said, crash)
            assert sentence in " ".join(said.split()), (arguments, said)
            assert said.count("\n") == 1, said
    assert not (folder / "never").exists()
    assert newest(folder / "two").name == "00000002"


def test_one_process_speaks(folder):
    """torchrun's report quotes the sentence where a traceback would stand."""
    done = torchrun(
        2, "transnormer_edu", "train", "--from", folder / "two", "--steps", "many",
        module=True, check=False,
    )  # fmt: skip
    sentence = "transnormer-edu: Invalid value for '--steps': 'many' is not a valid"
    lines = [line for line in done.stderr.splitlines() if sentence in line]
    assert done.returncode == 1
    assert [line for line in lines if line.startswith("transnormer-edu")] == lines[:1]
    assert all(line.strip().startswith("traceback : transnormer-edu") for line in lines[1:])


def test_a_run_goes_on_with_another_mesh(folder):
    """Tensor ranks until step 2, sequence ranks that gather until 4, then one process."""
    run = shutil.copytree(folder / "two", folder / "moved")
    weights = folder / "one" / "best"  # in the released format
    begin = ["train", "--data", folder / "book.txt", "--from", weights, "--out", folder / "begun"]
    rest = ["--batch-size", 2, "--context", 34, "--device", "cpu", "--steps", 2, "--until", 1]
    on = ["train", "--from", run, "--sequence-parallel", 2, "--exchange", "gather", "--until", 4]
    narrow = ["train", "--data", folder / "book.txt", *SMALL, "--precision", "bf16"]
    both = [*narrow, "--recompute", "--out", folder / "narrow two"]
    mapped = folder / "mapped two"
    prepared = ["train", "--data", folder / "prepared", *SMALL[2:], "--out", mapped, "--until", 2]
    last = ["train", "--from", mapped]
    for seen in commands(folder, on, [*begin, *rest], both, prepared, last):
        assert [(one[0], one[3]) for one in seen] == [(0, "None")] * 2, seen
        assert seen[1][1] == ""  # process 1 says nothing
    done = transnormer("train", "--from", run)
    assert done.exit_code == 0, done.output
    torch.testing.assert_close(losses(run), losses(folder / "one"), rtol=1e-4, atol=1e-4)
    (path,) = (run / "checkpoints").iterdir()
    assert transnormer("export", path, folder / "exported").exit_code == 0
    exported = TransNormerLLM.from_pretrained(folder / "exported").state_dict()
    for name, weight in TransNormerLLM.from_pretrained(run / "last").state_dict().items():
        torch.testing.assert_close(exported[name], weight.half(), rtol=0, atol=0)


def test_a_run_of_one_process_goes_on_with_many(folder):
    """The losses of one process that goes on; its moments count: without them step 6 differs."""
    for name in ("goes on", "is divided"):
        shutil.copytree(folder / "one", folder / name)
    more = ["train", "--steps", 8, "--from"]
    assert transnormer(*more, folder / "goes on").exit_code == 0
    torchrun(
        2, "transnormer_edu", *more, folder / "is divided", "--tensor-parallel", 2, module=True
    )
    assert len(losses(folder / "is divided")) == 8
    torch.testing.assert_close(
        losses(folder / "is divided"), losses(folder / "goes on"), rtol=1e-4, atol=1e-4
    )
    assert not (folder / "is divided" / "checkpoint.pt").exists()
    assert newest(folder / "is divided").name == "00000008"


def test_processes_share_a_prepared_text(folder):
    """Each maps the file, reads its rows, and after a stop goes on with the next ones."""
    new = ["train", "--data", folder / "prepared", *SMALL[2:]]
    assert transnormer(*new, "--out", folder / "mapped one").exit_code == 0
    one, two = losses(folder / "mapped one"), losses(folder / "mapped two")
    assert len(one) == len(set(one.tolist())) == 5
    torch.testing.assert_close(two, one, rtol=1e-4, atol=0)


def test_mixed_precision(folder):
    """Products in bfloat16 as in one process; the weights themselves are float32."""
    narrow = ["train", "--data", folder / "book.txt", *SMALL, "--precision", "bf16"]
    assert transnormer(*narrow, "--out", folder / "narrow one").exit_code == 0
    one, two, exact = (losses(folder / run) for run in ("narrow one", "narrow two", "one"))
    torch.testing.assert_close(two, one, rtol=2e-3, atol=0)
    assert (two - exact).abs().max() > 1e-5
    weights = load_weights(folder / "narrow two").state_dict().values()
    assert any((weight != weight.bfloat16()).any() for weight in weights)


def test_the_same_command_goes_on_after_a_kill(folder):
    """Process 1 dies in the middle of step 4, torchrun starts both again."""
    new = ["train", "--data", folder / "book.txt", *SMALL, "--out", folder / "killed"]
    done = torchrun(2, "tests/parallel/killed.py", *new, restarts=1)
    assert re.search("goes on after step [02]", done.stdout)  # 2 may still have been under way
    torch.testing.assert_close(losses(folder / "killed"), losses(folder / "one"), rtol=1e-4, atol=0)


@pytest.mark.bad_input
def test_another_run_is_not_gone_on_with(folder, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    new = ["train", "--data", folder / "book.txt", *SMALL, "--out", folder / "two", "--seed", 1]
    done = transnormer(*new, "--tensor-parallel", 1)
    assert done.exit_code == 1
    assert "already holds a training run" in done.output


def test_a_checkpoint_is_read_in_one_process(folder):
    """Of the run that began from weights, one step from them."""
    begun = load_weights(folder / "begun").state_dict()
    expected = TransNormerLLM.from_pretrained(folder / "one" / "best").state_dict()
    for name, weight in expected.items():
        assert 0 < (begun[name] - weight).abs().max() < 0.01


@pytest.mark.bad_input
def test_without_torchrun(folder):
    """A mesh of one works (above); a larger one does not."""
    done = transnormer("train", "--data", folder / "book.txt", *SMALL, "--sequence-parallel", 2)
    assert done.exit_code == 1
    assert "makes 2 processes, and this job has 1" in done.output
