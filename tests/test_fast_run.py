"""A run that never waits does what the training loop does, number for number."""

import math
from dataclasses import replace

import pytest
import torch

from tests.models import BOTH, tokens
from transnormer_edu.fast_run import FastRun
from transnormer_edu.settings import TrainSettings
from transnormer_edu.train import make_optimizer

SETTINGS = TrainSettings(
    steps=7, batch_size=3, context=16, warmup=2, learning_rate=2e-2, clip=0.5, device="cpu"
)
BATCHES = tokens(7, 3, 16).to(torch.int16)


def build(name="linear"):
    torch.manual_seed(0)
    return BOTH[name](torch.float32)


@pytest.mark.parametrize("name", BOTH)
def test_it_is_the_training_loop_written_out(name):
    run, model = FastRun(build(name), BATCHES, SETTINGS), build(name)
    run.run(7)
    optimizer, losses = make_optimizer(model, SETTINGS), []
    for step, ids in enumerate(BATCHES.long(), start=1):
        optimizer.zero_grad()
        loss = model(ids, labels=ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = SETTINGS.rate_at(step)
        optimizer.step()
        losses.append(loss.item())
    torch.testing.assert_close(run.losses, torch.tensor(losses))
    for ours, theirs in zip(run.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_in_pieces_it_is_the_same_run():
    whole, pieces = (FastRun(build(), BATCHES, SETTINGS) for _ in range(2))
    whole.run(7)
    for until in (1, 4, 7):
        pieces.run(until)
        assert int(pieces.at) == until
    assert torch.equal(whole.losses, pieces.losses)


def test_gradients_of_parts_add_up_to_one_update():
    parts = replace(SETTINGS, batch_size=1, accumulate=3)
    whole, cut = (FastRun(build(), BATCHES, settings) for settings in (SETTINGS, parts))
    whole.run(7), cut.run(7)
    torch.testing.assert_close(whole.losses, cut.losses, rtol=1e-4, atol=1e-5)


def test_held_out_loss_is_the_mean_over_windows_and_changes_nothing():
    run = FastRun(build(), BATCHES, SETTINGS)
    windows = tokens(5, 16, seed=9).to(torch.int16)  # more than a batch, and no multiple of one
    before = [p.clone() for p in run.model.parameters()]
    expected = [run.model(w.long(), labels=w.long()).item() for w in windows[:, None]]
    assert run.held_out_loss(windows) == pytest.approx(sum(expected) / 5, rel=1e-6)
    assert all(map(torch.equal, before, run.model.parameters()))
    assert run.model.training


def test_a_number_that_is_none_is_not_hidden():
    model = build()
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    run = FastRun(model, BATCHES, SETTINGS)
    run.run(7)
    assert run.losses.isnan().all() and math.isnan(run.held_out_loss(BATCHES[0]))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_a_gpu_recorded_is_what_it_would_have_done(monkeypatch):
    settings = replace(SETTINGS, device="cuda", precision="fp32")
    recorded, plain = (FastRun(build(), BATCHES, settings) for _ in range(2))
    recorded.run(7)
    assert recorded.graph is not None
    monkeypatch.setattr("transnormer_edu.fast_run.BEFORE_RECORDING", -1)
    plain.run(7)
    assert plain.graph is None
    torch.testing.assert_close(recorded.losses, plain.losses, rtol=1e-3, atol=1e-3)


@pytest.mark.bad_input
def test_batches_that_do_not_fit_the_steps():
    with pytest.raises(ValueError, match="got 7 batches, expected 8"):
        FastRun(build(), BATCHES, TrainSettings(steps=8, device="cpu"))
