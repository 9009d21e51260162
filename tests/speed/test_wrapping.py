"""With FSDP around it a model does the same updates; what both take is written down."""

import json

import torch

from transnormer_edu.config import TransNormerConfig
from transnormer_edu.speed import contestants, wrapping


def test_the_rows(tmp_path, monkeypatch, capsys):
    config = TransNormerConfig(vocab_size=40, dim=12, layers=2, heads=3, glu_dim=20)
    monkeypatch.setattr(contestants, "SMALL", config)
    out = tmp_path / "rows.json"
    wrapping.main(out, "2m", batch="1,3", context=7, device="cpu", seconds=60, commit="here")
    found = json.loads(out.read_text())
    assert found["origin"]["torch"] == torch.__version__
    assert [row["batch"] for row in found["rows"]] == [1, 3]
    for row in found["rows"]:
        assert row["loss_gap"] < 1e-6
        assert row["cost"] == row["fsdp_ms"] / row["ms"] - 1
        assert len(row["turns_ms"]) == wrapping.ROUNDS
    said = capsys.readouterr().out  # while it is measured
    assert said.count("first update, fsdp: loss") == 2
    assert said.count(" ms  fsdp ") == 2 * wrapping.ROUNDS
