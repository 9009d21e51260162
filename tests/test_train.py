"""Training: one seed one result, and a run that was killed goes on to the same losses."""

import csv
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from transnormer_edu import TransNormerConfig, TransNormerLLM
from transnormer_edu.atomic import DiskFull
from transnormer_edu.batches import Batches
from transnormer_edu.data import load_corpus
from transnormer_edu.evaluate import evaluate
from transnormer_edu.run_folder import export, is_run, read_notes, weights_folder
from transnormer_edu.settings import TrainSettings
from transnormer_edu.tokenizer import Tokenizer
from transnormer_edu.train import Trainer, load_trained, make_optimizer, resume
from transnormer_edu.transformer import Transformer, TransformerConfig

BYTES = Tokenizer.of_bytes()
SIZES = {"vocab_size": 259, "dim": 16, "layers": 2, "heads": 2, "glu_dim": 24}
QUICK = TrainSettings(
    steps=12, batch_size=3, context=16, warmup=3, eval_every=5, eval_windows=4, save_every=4,
    learning_rate=1e-2, device="cpu",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The sums of one thread are the same in every process of a machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "book.txt"
    lines = [f"{i} times {i % 7} is {i * (i % 7)}, and so on to {i * i}." for i in range(300)]
    path.write_text("\n\n".join(lines))
    return path


@pytest.fixture(scope="module")
def corpus(book):
    return load_corpus(book)


def new_trainer(corpus, folder=None, model=TransNormerLLM, seed=0, **changes):
    torch.manual_seed(seed)
    config = TransNormerConfig if model is TransNormerLLM else TransformerConfig
    settings = replace(QUICK, seed=seed, **changes)
    return Trainer(model(config(**SIZES)), BYTES, corpus, settings, folder)


def log(folder):
    """What must be the same to the bit: all columns but the time."""
    rows = list(csv.DictReader((folder / "log.csv").read_text().splitlines()))
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def whole(corpus, tmp_path_factory):
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    new_trainer(corpus, folder).run(progress=False)
    return folder


# ---------------------------------------------------------------- settings


def test_the_learning_rate_rises_and_falls():
    s = TrainSettings(steps=110, warmup=10, learning_rate=0.5, final_rate=0.1)
    assert [s.rate_at(t) for t in (1, 5, 10)] == pytest.approx([0.05, 0.25, 0.5])
    assert s.rate_at(60) == pytest.approx(0.5 * 0.55)
    assert s.rate_at(110) == pytest.approx(0.05)
    assert s.rate_at(35) == pytest.approx(0.5 * (0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2))


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("steps", 0, "steps is 0, expected a whole number of 1 or more"),
        ("steps", 1.5, "steps is 1.5"),
        ("steps", True, "steps is True"),
        ("context", 1, "context is 1, expected a whole number of 2 or more"),
        ("batch_size", -1, "batch_size is -1"),
        ("accumulate", 0, "accumulate is 0"),
        ("learning_rate", math.nan, "learning_rate is nan, expected a number from 0 to 1"),
        ("learning_rate", math.inf, "learning_rate is inf"),
        ("learning_rate", 0, "learning_rate is 0, expected more"),
        ("learning_rate", "fast", "learning_rate is 'fast'"),
        ("final_rate", 1.1, "final_rate is 1.1"),
        ("beta1", 1, "beta1 is 1"),
        ("clip", -1.0, "clip is -1.0"),
        ("warmup", -1, "warmup is -1"),
        ("eval_windows", 0, "eval_windows is 0"),
        ("save_every", -1, "save_every is -1"),
        ("seed", -1, "seed is -1"),
        ("seed", 2**32, "seed is 4294967296, expected less than 4294967296"),
        ("precision", "fp8", "precision is 'fp8', expected one of auto, fp32, bf16"),
        ("device", None, "device is None, expected auto or cpu"),
        ("device", "abacus", "device is 'abacus', expected auto or cpu"),
    ],
)
def test_settings_that_cannot_work(name, value, sentence):
    with pytest.raises(ValueError, match=sentence):
        TrainSettings(**{name: value})


@pytest.mark.bad_input
@pytest.mark.bad_input
def test_settings_may_be_numpys():
    assert json.dumps(asdict(replace(QUICK, steps=np.int64(5)))) == json.dumps(
        asdict(replace(QUICK, steps=5))
    )


def test_settings_come_back_from_their_dict():
    assert TrainSettings.from_dict(asdict(QUICK)) == QUICK
    with pytest.raises(ValueError, match="no setting 'stepz', expected one of steps, "):
        TrainSettings.from_dict({"stepz": 3})


# ---------------------------------------------------------------- batches and optimizer


def test_an_epoch_reads_each_window_once():
    batches = Batches(torch.arange(100, 203), context=10, batch_size=4, seed=1)
    windows = torch.cat([batches[i] for i in range(5)])  # 20 windows: two epochs of 10
    epochs = [windows[:10].flatten().tolist(), windows[10:].flatten().tolist()]
    for epoch in epochs:
        assert len(set(epoch)) == 100
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) != sorted(epochs[1])  # the ring was turned: another cut
    steps = windows.diff(dim=1)
    assert ((steps == 1) | (steps == 1 - 103)).all()  # contiguous text, or once around the ring


def test_batch_i_is_the_same_in_any_order_and_differs_by_seed():
    def batches(seed):
        return Batches(torch.arange(1000), context=10, batch_size=7, seed=seed)

    first, second = batches(3), batches(3)
    forwards = [first[i] for i in range(40)]
    for i in (39, 0, 14, 15, 13):
        assert torch.equal(second[i], forwards[i])
    assert not torch.equal(batches(4)[0], forwards[0])


def test_a_corpus_of_exactly_one_batch_is_enough():
    assert Batches(torch.arange(40), 10, 4, 0)[3].shape == (4, 10)
    with pytest.raises(ValueError, match="has 39 tokens and one batch needs 4 x 10 = 40"):
        Batches(torch.arange(39), 10, 4, 0)


@pytest.mark.parametrize("kind", [TransNormerLLM, Transformer])
def test_only_the_matrices_of_the_layers_decay(corpus, kind):
    model = new_trainer(corpus, model=kind).model
    decaying, others = make_optimizer(model, QUICK).param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (QUICK.weight_decay, 0.0)
    names = {id(p): name for name, p in model.named_parameters()}
    assert all("proj" in names[id(p)] or ".l" in names[id(p)] for p in decaying["params"])
    kept = {names[id(p)] for p in others["params"]}
    assert "model.embed_tokens.weight" in kept
    assert all("embed" in name or "theta" in name or "norm" in name for name in kept)
    assert len(decaying["params"]) + len(others["params"]) == len(names)


# ---------------------------------------------------------------- the loop


@pytest.mark.parametrize("kind", [TransNormerLLM, Transformer])
def test_both_models_learn_on_the_same_batches(corpus, kind):
    trainer = new_trainer(corpus, model=kind, steps=40)
    losses = [step.loss for step in trainer]
    assert losses[0] == pytest.approx(math.log(259), abs=0.3)
    assert losses[-1] < losses[0] - 1.5
    reference = new_trainer(corpus)
    assert all(torch.equal(trainer.batches[i], reference.batches[i]) for i in range(5))


def test_one_seed_one_result(corpus):
    losses = [[step.loss for step in new_trainer(corpus, seed=seed)] for seed in (5, 5, 6)]
    assert losses[0] == losses[1] != losses[2]


def test_accumulating_is_a_larger_batch(corpus):
    at_once = new_trainer(corpus, batch_size=6, clip=0.0)
    in_two = new_trainer(corpus, batch_size=3, accumulate=2, clip=0.0)
    assert torch.equal(at_once.batches[0], torch.cat([in_two.batches[0], in_two.batches[1]]))
    for a, b, _ in zip(at_once, in_two, range(4), strict=False):
        assert a.loss == pytest.approx(b.loss, rel=1e-5)
        assert a.gradient_norm == pytest.approx(b.gradient_norm, rel=1e-4)
        assert a.tokens == b.tokens == a.step * 96


def test_clipping_limits_the_gradient(corpus):
    trainer = new_trainer(corpus, clip=1e-3)
    seen = []
    trainer.optimizer.register_step_pre_hook(
        lambda *_: seen.append(
            math.sqrt(sum(float(p.grad.square().sum()) for p in trainer.model.parameters()))
        )
    )
    step = next(iter(trainer))
    assert step.gradient_norm > 0.1
    assert seen[0] == pytest.approx(1e-3, rel=1e-3)


def test_bf16_is_used_when_asked_for(corpus):
    trainer = new_trainer(corpus, precision="bf16")
    kinds = set()
    trainer.model.model["layers"][0].channel_mixer.l1.register_forward_hook(
        lambda _module, _inputs, out: kinds.add(out.dtype)
    )
    step = next(iter(trainer))
    assert kinds == {torch.bfloat16}
    assert math.isfinite(step.loss)
    assert next(trainer.model.parameters()).dtype == torch.float32


def test_a_callback_sees_every_step_and_a_run_ends_with_the_whole_held_out_text(corpus):
    trainer, seen = new_trainer(corpus), []
    score = trainer.run(on_step=seen.append, progress=False)
    assert [step.step for step in seen] == list(range(1, 13))
    assert [step.step for step in seen if step.held_out] == [5, 10, 12]
    assert score.bytes == len(corpus.held_out_text.encode()) > seen[-1].held_out.bytes
    assert score == trainer.held_out_score()
    assert all(step.tokens_per_second > 0 for step in seen)


# ---------------------------------------------------------------- what is written


def test_the_folder_holds_all_that_is_promised(whole, corpus):
    assert {path.name for path in whole.iterdir()} == {
        "settings.json", "tokenizer.json", "log.csv", "log.json", "checkpoint.pt", "best", "last",
    }  # fmt: skip
    rows = log(whole)
    assert [int(row["step"]) for row in rows] == list(range(1, 13))
    looks = json.loads((whole / "log.json").read_text())["looks"]
    assert [look["step"] for look in looks] == [5, 10, 12]
    about = json.loads((whole / "settings.json").read_text())
    assert about["corpus"]["sha256"] == corpus.fingerprint
    assert TrainSettings.from_dict(about["settings"]) == QUICK


def test_weights_carry_where_they_come_from(whole, corpus):
    for name in ("best", "last"):
        notes = read_notes(whole / name)
        assert notes["corpus"]["sha256"] == corpus.fingerprint
        assert notes["tokenizer_sha256"] == BYTES.fingerprint
        assert TrainSettings.from_dict(notes["settings"]) == QUICK
        assert str(whole) not in str(notes)
        assert corpus.fingerprint in (whole / name / "README.md").read_text()
        assert "zlib -9" in (whole / name / "README.md").read_text()


def test_best_is_the_best_look_and_last_is_the_end(whole, corpus):
    looks = json.loads((whole / "log.json").read_text())["looks"]
    for name, expected in (("best", min(looks, key=lambda x: x["nats"])), ("last", looks[-1])):
        model, tokenizer = load_trained(whole / name)
        score = evaluate(model, tokenizer, corpus.held_out_text, 16, 16, max_windows=4)
        assert score.nats == pytest.approx(expected["nats"], rel=1e-6)
    assert read_notes(whole / "last")["held_out"]["bytes"] == len(corpus.held_out_text.encode())
    assert weights_folder(whole) == whole / "best"
    assert is_run(whole)
    assert not is_run(whole / "best")


def test_exported_weights_are_half_as_large_and_as_good(whole, corpus, tmp_path):
    export(whole, tmp_path / "small")
    files = [folder / "model.safetensors" for folder in (whole / "best", tmp_path / "small")]
    numbers = sum(p.numel() for p in load_trained(whole)[0].parameters())
    assert files[0].stat().st_size - files[1].stat().st_size == pytest.approx(2 * numbers, rel=0.02)
    scores = [
        evaluate(*load_trained(folder), corpus.held_out_text, 16).bits_per_byte
        for folder in (whole, tmp_path / "small")
    ]
    assert scores[1] == pytest.approx(scores[0], abs=1e-3)
    assert read_notes(tmp_path / "small") == read_notes(whole)
    with pytest.raises(FileExistsError, match="small exists already"):
        export(whole, tmp_path / "small")
    add = (tmp_path / "small" / "model.safetensors").read_bytes()
    length = int.from_bytes(add[:8], "little")
    header = json.loads(add[8 : 8 + length])
    header["__metadata__"] = {"format": "pt"}  # as others write it
    text = json.dumps(header).encode().ljust(length)
    (tmp_path / "small" / "model.safetensors").write_bytes(add[:8] + text + add[8 + length :])
    with pytest.raises(ValueError, match="header is not as it was saved"):
        export(tmp_path / "small", tmp_path / "other")
    (tmp_path / "small" / "model.safetensors.index.json").unlink()
    with pytest.raises(ValueError, match="does not say what it was trained on"):
        export(tmp_path / "small", tmp_path / "other")


def test_a_worse_look_does_not_replace_the_best(corpus, tmp_path):
    trainer = new_trainer(corpus, tmp_path / "run", eval_every=1)
    steps = iter(trainer)
    next(steps)
    before = (tmp_path / "run" / "best" / "model.safetensors").read_bytes()
    trainer.best = 0.0
    next(steps)
    assert (tmp_path / "run" / "best" / "model.safetensors").read_bytes() == before


def test_training_from_weights_starts_where_they_are(whole, corpus, tmp_path):
    model, tokenizer = load_trained(whole)
    step = next(iter(Trainer(model, tokenizer, corpus, QUICK, tmp_path / "more")))
    fresh = next(iter(new_trainer(corpus)))
    assert step.loss < fresh.loss - 0.5


# ---------------------------------------------------------------- going on


def test_a_left_loop_goes_on_to_the_same_losses(whole, corpus, tmp_path):
    for step in new_trainer(corpus, tmp_path / "run"):
        if step.step == 11:  # three steps after a checkpoint, which has seen one look
            break
    with open(tmp_path / "run" / "log.csv", "a") as file:
        file.write("1")  # of line 12, as a killed process leaves it
    again = resume(tmp_path / "run")  # the corpus is found again by itself
    assert again.step == 8
    assert len(log(tmp_path / "run")) == 8
    again.run(progress=False)
    assert log(tmp_path / "run") == log(whole)
    for name in ("best", "last"):
        a, b = (folder / name / "model.safetensors" for folder in (whole, tmp_path / "run"))
        assert a.read_bytes() == b.read_bytes()
    assert (
        json.loads((whole / "log.json").read_text())["looks"]
        == json.loads((tmp_path / "run" / "log.json").read_text())["looks"]
    )


def test_random_numbers_go_on_as_well(corpus, tmp_path):
    trainer = new_trainer(corpus, tmp_path / "run")
    next(iter(trainer))
    trainer.save()
    expected = torch.rand(3)
    torch.manual_seed(99)
    resume(tmp_path / "run", corpus)
    assert torch.equal(torch.rand(3), expected)


def test_a_finished_run_can_be_given_more_steps(whole, corpus, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    assert list(resume(tmp_path / "run", corpus)) == []
    longer = resume(tmp_path / "run", corpus, steps=15)
    assert [step.step for step in longer] == [13, 14, 15]
    assert resume(tmp_path / "run", corpus).settings.steps == 15
    with pytest.raises(ValueError, match="steps is 14 and the run in .* has done 15"):
        resume(tmp_path / "run", corpus, steps=14)


@pytest.mark.bad_input
def test_a_run_that_ends_early_follows_the_whole_plan(whole, corpus, tmp_path):
    """The learning rates are those of 12 steps, also where a run ends after 5 of them."""
    folder = tmp_path / "run"
    new_trainer(corpus, folder).run(progress=False, until=5)
    assert log(folder) == log(whole)[:5]
    again = resume(folder, corpus)
    assert again.step == 5
    for step in (5, 13, 6.5):
        with pytest.raises(ValueError, match=f"until is {step}, expected a step from 6 to 12"):
            again.run(until=step)
    again.run(progress=False)
    assert log(folder) == log(whole)


def test_ctrl_c_writes_a_checkpoint(corpus, tmp_path):
    def interrupt(step):
        if step.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        new_trainer(corpus, tmp_path / "run").run(interrupt, progress=False)
    assert resume(tmp_path / "run", corpus).step == 3


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals of this kind")
def test_ctrl_c_in_the_middle_of_a_step_waits_for_its_end(whole, corpus, tmp_path):
    trainer = new_trainer(corpus, tmp_path / "run")

    def press(*_):
        if trainer.step == 2:
            os.kill(os.getpid(), signal.SIGINT)

    trainer.optimizer.register_step_pre_hook(press)
    with pytest.raises(KeyboardInterrupt):
        trainer.run(progress=False)
    again = resume(tmp_path / "run", corpus)
    assert again.step == 3
    again.run(progress=False)
    assert log(tmp_path / "run") == log(whole)


# A training process; DIE_AT names the moment at which it is killed, without a chance to tidy up.
PROGRAM = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from tests import test_train as t
from transnormer_edu import atomic
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
if os.environ["DIE_AT"] == "write":       # in the middle of the bytes of step 8's checkpoint
    trainer, written = None, 0
    class Dying(atomic._Witness):
        def write(self, data):
            global written
            if trainer and trainer.step == 8 and self.file.name.endswith("checkpoint.pt.part"):
                written += len(data)
                if written > 20_000:
                    super().write(data[: len(data) // 2])
                    self.file.flush()
                    die()
            return super().write(data)
    atomic._Witness = Dying
trainer = t.new_trainer(t.load_corpus(sys.argv[1]), sys.argv[2])
for step in trainer:
    if step.step == {"early": 2, "step": 7}.get(os.environ["DIE_AT"]):
        die()
    if os.environ["DIE_AT"] == "outside":
        print(step.step, flush=True)
"""


def start(book, folder, moment):
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(book), str(folder)],
        env=os.environ | {"DIE_AT": moment, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
@pytest.mark.parametrize("moment", ["early", "step", "write", "outside"])
def test_a_killed_process_goes_on_to_the_same_losses(whole, book, tmp_path, moment):
    process = start(book, tmp_path / "run", moment)
    if moment == "outside":
        while int(process.stdout.readline()) < 5:
            pass
        time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=120) == -signal.SIGKILL
    parts = list((tmp_path / "run").glob("*.part"))
    if moment == "write":
        assert [part.name for part in parts] == ["checkpoint.pt.part"]
        size = (tmp_path / "run" / "checkpoint.pt").stat().st_size
        assert size / 10 < parts[0].stat().st_size < size / 2
    if moment != "early":
        load_trained(tmp_path / "run")  # what is there is whole
    again = resume(tmp_path / "run")
    assert again.step == {"early": 0, "outside": again.step}.get(moment, 4)
    assert not list((tmp_path / "run").glob("*.part"))
    again.run(progress=False)
    assert log(tmp_path / "run") == log(whole)


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.bad_input
def test_a_full_disk_keeps_the_last_checkpoint(corpus, tmp_path):
    resource = pytest.importorskip("resource", reason="limits of a process are POSIX")
    folder = tmp_path / "run"
    trainer = new_trainer(corpus, folder, eval_every=0)
    steps = iter(trainer)
    for _ in range(4):
        next(steps)
    before = (folder / "checkpoint.pt").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, hard))  # no file may grow larger
    try:
        with pytest.raises(DiskFull, match=r"no room to write checkpoint\.pt .* free some space"):
            for _ in range(4):
                next(steps)
        with pytest.raises(OSError, match="could not write .*best|no room to write"):
            trainer.folder.save_model("best", trainer.model, BYTES, trainer.about())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (folder / "checkpoint.pt").read_bytes() == before
    assert {p.name for p in folder.iterdir()} == {
        "settings.json", "tokenizer.json", "log.csv", "checkpoint.pt",
    }  # fmt: skip
    assert resume(folder, corpus).step == 4


@pytest.mark.bad_input
def test_a_loss_that_is_no_number_ends_the_run_before_it_is_written(corpus, tmp_path):
    trainer = new_trainer(corpus, tmp_path / "run")
    for step in trainer:
        if step.step == 5:
            break
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    with torch.no_grad():
        next(trainer.model.parameters()).fill_(math.nan)
    with pytest.raises(
        FloatingPointError, match="At step 6 the loss is nan .* lower learning_rate"
    ):
        next(iter(trainer))
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before


@pytest.mark.bad_input
def test_a_run_is_not_written_over(whole, corpus):
    before = log(whole)
    with pytest.raises(FileExistsError, match="already holds a training run: go on with it"):
        new_trainer(corpus, whole)
    assert log(whole) == before


@pytest.mark.bad_input
def test_what_cannot_be_resumed_says_why(whole, book, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no checkpoint\.pt in"):
        resume(tmp_path)
    shutil.copytree(whole, tmp_path / "run")
    other = tmp_path / "other.txt"
    other.write_text(book.read_text() + "\n\none more line")
    with pytest.raises(ValueError, match="The corpus here has sha256 .* began with"):
        resume(tmp_path / "run", load_corpus(other))
    with pytest.raises(ValueError, match="steps is '3', expected a whole number"):
        resume(tmp_path / "run", steps="3")
    new_trainer(replace(load_corpus(book), source=""), tmp_path / "own")
    with pytest.raises(ValueError, match=r"'book.txt', which .* resume\(folder, corpus\)"):
        resume(tmp_path / "own")
    Tokenizer.train(["the cat"], 262).save(tmp_path / "run")
    with pytest.raises(ValueError, match="The tokenizer here has sha256"):
        resume(tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(ValueError, match="is damaged or no checkpoint of ours"):
        resume(tmp_path / "run")


@pytest.mark.bad_input
@pytest.mark.parametrize("record", ["data.pkl", "data/0", "data/7"])
def test_a_changed_byte_in_a_checkpoint_is_found(whole, tmp_path, record):
    """torch.load would take it: a name that is not ours, or a number of a weight or a moment."""
    shutil.copytree(whole, tmp_path / "run")
    path = tmp_path / "run" / "checkpoint.pt"
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/" + record))
        at = data.find(archive.read(name))
    data[at + 8] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"is damaged .*bad checksum of .*{record}.*: start from"):
        resume(tmp_path / "run")


@pytest.mark.bad_input
def test_a_checkpoint_of_another_program_is_named(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    ours = torch.load(checkpoint, weights_only=True)
    for entry in ours:
        torch.save({name: value for name, value in ours.items() if name != entry}, checkpoint)
        with pytest.raises(ValueError, match=rf"no checkpoint of ours \(it lacks {entry}\): start"):
            resume(tmp_path / "run")
    torch.save([1, 2], checkpoint)
    with pytest.raises(ValueError, match="it lacks about, step, model"):
        resume(tmp_path / "run")
    assert log(tmp_path / "run") == log(whole)


@pytest.mark.bad_input
def test_what_cannot_be_trained_says_why(corpus):
    with pytest.raises(ValueError, match="one batch needs 5000 x 16 = 80000"):
        new_trainer(corpus, batch_size=5000, steps=1)
    for given, sentence in (
        (dict(model=None), "model is a NoneType, expected a Module"),
        (dict(tokenizer="bytes"), "tokenizer is a str, expected a Tokenizer"),
        (dict(corpus="english"), "corpus is a str, expected a Corpus"),
        (dict(settings={}), "settings is a dict, expected a TrainSettings"),
    ):
        fitting = dict(model=TransNormerLLM(TransNormerConfig(**SIZES)), tokenizer=BYTES)
        with pytest.raises(TypeError, match=sentence):
            Trainer(**fitting | dict(corpus=corpus, settings=QUICK) | given)
    model = TransNormerLLM(TransNormerConfig(**SIZES | {"vocab_size": 258}))
    with pytest.raises(ValueError, match="has 259 ids and the model knows 258"):
        Trainer(model, BYTES, corpus, QUICK)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "no table at all",
        lambda text: "",
        lambda text: text.replace("step,loss", "loss,step"),
        lambda text: text.replace("\n3,", "\nthree,"),
        lambda text: text.replace("\n3,", "\n3;"),
        lambda text: text.replace("\n3,", "\n\0\0\ufffd\n"),
    ],
)
def test_a_damaged_log_is_named_and_kept(whole, tmp_path, damage):
    shutil.copytree(whole, tmp_path / "run")
    path = tmp_path / "run" / "log.csv"
    damaged = damage(path.read_text())
    path.write_text(damaged)
    with pytest.raises(ValueError, match=r"log\.csv is damaged: expected the columns step,loss"):
        resume(tmp_path / "run")
    assert path.read_text() == damaged
    path.unlink()  # the way out that the sentence names
    assert resume(tmp_path / "run").step == 12
    assert path.read_text().startswith("step,loss")


@pytest.mark.bad_input
def test_notes_that_are_not_there_or_damaged_are_named(whole, tmp_path):
    golden = Path(__file__).parent / "data" / "released_small"  # a pytorch_model.bin
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors in .*; expected a folder"):
        read_notes(golden)
    shutil.copytree(whole / "best", tmp_path / "best")
    shutil.copytree(golden, tmp_path / "bin")
    shutil.copy(whole / "best" / "tokenizer.json", tmp_path / "bin")
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors in"):
        export(tmp_path / "bin", tmp_path / "other")
    (tmp_path / "best" / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read as weights"):
        read_notes(tmp_path / "best")
    assert {p.name for p in tmp_path.iterdir()} == {"best", "bin"}
