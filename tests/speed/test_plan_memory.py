"""The plan's memory beside what was counted; really counted on a GPU alone."""

import json

import pytest
import torch

from transnormer_edu.speed import plan_memory

RUNS = [("385m", 1, 64, False), ("385m", 1, 64, True)]


@pytest.fixture
def found(tmp_path, monkeypatch):
    """The file of a run with these settings."""

    def run(**settings):
        monkeypatch.setattr(plan_memory, "RUNS", RUNS)
        plan_memory.main(tmp_path / "new" / "plan.json", commit="here", **settings)
        return json.loads((tmp_path / "new" / "plan.json").read_text())

    return run


def test_the_file_says_where_it_is_from(found, monkeypatch, capsys):
    start, counted = plan_memory.start, {"forward": 10**9, "backward": 3 * 10**9, "update": 10**9}
    monkeypatch.setattr(plan_memory, "start", lambda device: start("cpu"))
    monkeypatch.setattr(plan_memory, "measure", lambda job, mesh: counted)
    file = found(seconds=60)
    assert file["origin"]["commit"] == "here" and file["origin"]["torch"] == torch.__version__
    assert [run["recompute"] for run in file["runs"]] == [False, True]
    for run in file["runs"]:
        assert run["measured"] == counted
        assert run["ratio"] == pytest.approx(max(run["planned"].values()) / 3e9, abs=1e-4)
    assert "385m 1 x 64, recomputing: planned / measured" in capsys.readouterr().out


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_counts_what_is_planned(found):
    for run in found(seconds=60)["runs"]:
        assert run["ratio"] == pytest.approx(1, abs=0.1)
