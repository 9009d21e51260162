"""The command: what it prints, how it refuses, and that its parts fit together."""

import re
from dataclasses import asdict

import pytest
from typer.testing import CliRunner

from transnormer_edu.cli import app
from transnormer_edu.settings import TrainSettings
from transnormer_edu.train_command import SMALL


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    runner = CliRunner()

    def call(*arguments, status=0):
        result = runner.invoke(app, [str(a) for a in arguments])
        assert result.exit_code == status, result.output
        return result.output

    return call


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("doctor", "how to mend it"),
        ("course", "pages"),
        ("book", "symbols"),
        ("lab", "JupyterLab"),
        ("train", "--learning-rate"),
        ("ablate", "--rehearse"),
        ("eval", "bits per byte"),
        ("export", "float16"),
        ("generate", "--temperature"),
        ("info", "FLOPs"),
        ("bench", "attention"),
        ("exercises", "prove"),
        ("plan", "Which mesh"),
        ("classroom", "nbgrader"),
    ],
)
def test_help_says_what_a_command_does(run, command, word):
    assert word in run(command, "--help")
    assert command in run("--help")


def test_help_names_the_defaults_that_are_taken(run):
    page = " ".join(run("train", "--help").replace("│", " ").split())
    for name, value in asdict(TrainSettings()).items():
        option = f"--{name.replace('_', '-')} "
        if option in page:
            assert re.search(rf"{option}[^\[]*\[default: \({value}\)\]", page), name
    for name, value in SMALL.items():
        option = f"--{name.replace('_', '-')} "
        assert re.search(rf"{option}[^\[]*\[default: \({value}\)\]", page), name


def test_info_of_a_preset_and_of_a_folder(run, tmp_path):
    from tests.models import linear, softmax

    assert "398,984,192" in run("info", "385m")
    model = linear()
    model.save_pretrained(tmp_path)
    assert f"{sum(p.numel() for p in model.parameters()):,}" in run("info", tmp_path)
    model = softmax()
    model.save_pretrained(tmp_path / "softmax")
    page = run("info", tmp_path / "softmax")
    assert f"{sum(p.numel() for p in model.parameters()):,}" in page
    assert "480 B for every token of a text" in page  # 3 layers, keys and values of 20 numbers
    assert "240 FLOP more forward for each token before it" in page
    assert "no preset '2b'; there are 385m" in run("info", "2b", status=1)


def test_train_go_on_eval_generate(run, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("".join(f"The number {i} is followed by {i + 1}.\n\n" for i in range(900)))
    folder = tmp_path / "run"
    sizes = ["--dim", 16, "--layers", 2, "--heads", 2, "--glu-dim", 20, "--vocab-size", 300]
    small = ["--batch-size", 2, "--context", 16, "--device", "cpu", "--steps", 6]
    first = run("train", "--data", text, "--out", folder, *sizes, *small)
    assert re.search(r"held out: loss \d", first)
    assert "already holds a training run" in run(
        "train", "--data", text, "--out", folder, *sizes, *small, status=1
    )
    assert "held out" in run("train", "--from", folder, "--steps", 8)
    assert "ended at step 9, train --from" in run(
        "train", "--from", folder, "--steps", 10, "--until", 9
    )
    assert "--clip is settled by" in run("train", "--from", folder, "--clip", 2, status=1)
    other = tmp_path / "other"
    assert "held out" in run(
        "train", "--from", folder / "best", "--data", text, "--out", other, *small
    )
    assert re.search(r"loss \d.*bits per byte", run("eval", folder, text))
    assert "MB" in run("export", folder, tmp_path / "given away")
    assert "exists already" in run("export", folder, tmp_path / "given away", status=1)
    assert re.search(r"loss \d", run("eval", tmp_path / "given away", text))
    written = run("generate", "The number", "--model", folder, "--max-new-tokens", 9, "--seed", 1)
    assert written.startswith("The number")
    assert written == run(
        "generate", "The number", "--model", folder, "--max-new-tokens", 9, "--seed", 1
    )


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "--steps", "0"], "steps is 0, expected a whole number of 1 or more"),
        (["train", "--data", "/no/such/file"], "There is no file /no/such/file"),
        (["train", "--heads", "5"], "5 heads do not divide hidden_dim 192"),
        (["train", "--vocab-size", "12"], "vocab_size is 12, expected at least 259"),
        (["eval", "/no/weights", __file__], "no config.json in /no/weights"),
        (["generate", "--model", "/no/weights"], "no config.json in /no/weights"),
    ],
)
def test_what_is_wrong_is_one_sentence(run, arguments, sentence):
    output = run(*arguments, status=1)
    assert sentence in output
    assert "Traceback" not in output


def test_train_with_another_decay(run, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("".join(f"The number {i} is followed by {i + 1}.\n\n" for i in range(900)))
    sizes = ["--dim", 16, "--layers", 2, "--heads", 2, "--glu-dim", 20, "--vocab-size", 259]
    small = ["--batch-size", 2, "--context", 16, "--device", "cpu", "--steps", 2]
    folder = tmp_path / "run"
    run("train", "--data", text, "--out", folder, "--decay", "none", *sizes, *small)
    assert '"decay": "none"' in (folder / "best" / "config.json").read_text()
    refused = run("train", "--data", text, "--decay", "none", "--kind", "softmax", status=1)
    assert "--decay is of linear attention" in refused


def test_plan_says_what_fits_and_what_does_not(run):
    page = run("plan", "7b", "--gpus", 8, "--context", 2**20)
    assert "data 1 x sequence 8 x tensor 1, recomputing" in page
    assert re.search(r"update    1 x 1,048,576 tokens: .* 131,072 on each GPU", page)
    largest, allowed = re.search(r"largest   ([\d.]+) of (\d+) GB", page).groups()
    assert 60 < float(largest) <= float(allowed) == 80
    for part in ("weights", "gradients", "optimiser", "activations", "state", "buffers"):
        assert part in page.splitlines()[3]
    for message in ("weights      all-gather", "gradients    reduce-scatter", "states       send"):
        assert message in page
    said = run("plan", "175b", "--gpus", 8, status=1)
    assert "this needs at least" in said and len(said.strip().splitlines()) == 1
