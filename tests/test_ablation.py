"""The rows of the ablations: each differs from the model of the paper in what its name says."""

import math
import os
import statistics
import subprocess
import sys

import pytest
import torch

from transnormer_edu.ablation import (
    CHOICES,
    TABLES,
    Sizes,
    Table,
    measured,
    model_of,
    order,
    pooled_spread,
    report,
    verdicts,
)
from transnormer_edu.decay import flat_rates, paper_rates, released_rates
from transnormer_edu.transformer import Transformer

TINY = Sizes(vocab_size=37, dim=24, layers=3, heads=4, glu_dim=40)


def parts(row):
    torch.manual_seed(0)
    model = model_of(row, TINY)
    return model, [block.token_mixer for block in model.model["layers"]]


def test_every_row_has_nine_million_parameters_to_one_in_a_hundred():
    with torch.device("meta"):
        counts = {
            row: sum(p.numel() for p in model_of(row, Sizes()).parameters()) for row in CHOICES
        }
    assert 9e6 < counts["base"] < 10e6
    for row, count in counts.items():
        assert count == pytest.approx(counts["base"], rel=0.01), row


def test_positions_differ_in_angles_decay_and_sinusoid():
    expected = {  # row: layers with angles, whether anything decays, whether a sinusoid is added
        "base": ([0], True, False),
        "absolute": ([], False, True),
        "exp_decay": ([], True, False),
        "lrpe": ([0, 1, 2], False, False),
        "lrpe_d": ([0, 1, 2], True, False),
    }
    assert set(expected) == set(TABLES["positions"].rows.values())
    for row, (angles, decays, added) in expected.items():
        model, mixers = parts(row)
        assert [i for i, mixer in enumerate(mixers) if mixer.lrpe is not None] == angles
        assert all(bool((mixer.rate > 0).all()) == decays for mixer in mixers)
        assert model.config.absolute_position == added


def test_schedules_of_decay():
    for row, schedule in (
        ("base", released_rates), ("no_temperature", flat_rates), ("paper_decay", paper_rates)
    ):  # fmt: skip
        for layer, mixer in enumerate(parts(row)[1]):
            torch.testing.assert_close(mixer.rate, schedule(4, layer, 3))


def test_the_other_rows():
    choices = {row: parts(row)[0].config for row in CHOICES}
    assert choices["no_gate"].gate == "none" and choices["base"].gate == "full"
    assert choices["no_gate"].glu_dim == 48 > choices["base"].glu_dim == 40
    assert [choices[row].activation for row in TABLES["activation"].rows.values()] == [
        "silu", "none", "1+elu",
    ]  # fmt: skip
    assert [choices[row].glu_activation for row in TABLES["glu"].rows.values()] == ["none", "silu"]
    assert [choices[row].norm for row in TABLES["norm"].rows.values()] == [
        "simplermsnorm", "rmsnorm", "layernorm",
    ]  # fmt: skip
    assert isinstance(parts("transformer")[0], Transformer)


def test_every_choice_is_in_a_table_and_the_papers_figures_have_rows():
    assert {row for table in TABLES.values() for row in table.rows.values()} == set(CHOICES)
    for table in TABLES.values():
        assert "base" in table.rows.values()
        assert not table.paper or table.paper.keys() == table.rows.keys()


# In a process of its own: here every function carries a check of shapes, which cannot be traced.
COMPILE = """
import torch
from transnormer_edu.ablation import Sizes, model_of
ids = torch.randint(3, 37, (2, 9))
for row in ('base', 'transformer', 'no_gate'):  # the others go the same way through the code
    torch.compiler.reset()
    model = model_of(row, Sizes(vocab_size=37, dim=24, layers=2, heads=4, glu_dim=40))
    expected = model(ids, labels=ids)
    for block in model.model["layers"]:
        block.compile(fullgraph=True, backend="eager")
    torch.testing.assert_close(model(ids, labels=ids), expected)
    print(row)
"""


def test_blocks_can_be_compiled_whole():
    """`ablate --compile` fuses blocks; a break in the middle of one would undo most of that."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == ["base", "transformer", "no_gate"], done.stderr


@pytest.mark.bad_input
def test_an_unknown_row_is_named():
    with pytest.raises(ValueError, match="row is 'gru', expected one of base, transformer"):
        model_of("gru", TINY)


def test_the_report_says_what_is_there_and_what_is_not():
    run = {"runs": [{}, {}, {}], "learning_rate": 4e-3}
    rows = {
        "base": run | {"mean": 3.14159, "spread": 0.0123},
        "transformer": run | {"mean": 3.0, "spread": None},
        "one_plus_elu": run | {"mean": None, "spread": None},
    }
    text = "\n".join(report({"rows": rows}))
    assert f"{'TransNormerLLM':26}2.248  3.1416 ± 0.0123 (3 seeds, rate 0.004)" in text
    assert f"{'Transformer':26}2.362  3.0000 (3 seeds" in text
    assert f"{'1+elu':26}2.252  diverged (3 seeds" in text
    assert f"{'LRPE-d':26}2.236  not trained yet" in text
    assert f"{'as printed':26}{'':7}not trained yet" in text  # the paper has no such table


def result(losses):
    whole = None not in losses
    return {
        "runs": [{"loss": loss} for loss in losses],
        "mean": statistics.fmean(losses) if whole else None,
        "spread": statistics.stdev(losses) if whole and len(losses) > 1 else None,
    }


def results(**losses):
    return {"rows": {row: result(given) for row, given in losses.items()}}


def test_the_pooled_spread_weighs_rows_by_their_seeds():
    rows = [result([1.0, 3.0]), result([5.0, 5.0, 5.0]), result([9.0]), result([None, 2.0])]
    assert pooled_spread(rows) == pytest.approx(math.sqrt((1 * 2 + 2 * 0) / 3))
    assert pooled_spread([result([9.0])]) == math.inf


def test_an_order_needs_more_than_two_standard_errors():
    """Spread 0.1 in all rows, three seeds: the limit is 2 x 0.1 x sqrt(2/3) = 0.163."""
    noise = (-0.1, 0.0, 0.1)
    found = results(
        a=[2 + x for x in noise], b=[2.15 + x for x in noise], c=[2.18 + x for x in noise]
    )
    assert order(found, "a", "b") == 0
    assert (order(found, "a", "c"), order(found, "c", "a")) == (-1, 1)
    assert order(found, "a", "a") == 0


def test_a_row_that_scatters_more_than_the_others_is_judged_by_its_own_spread():
    still = {f"still{i}": [1 + i, 1.001 + i, 0.999 + i] for i in range(30)}
    found = results(wild=[1.0, 1.8, 1.4], **still)
    assert pooled_spread(found["rows"].values()) * 2 * math.sqrt(2 / 3) < 0.4
    assert order(found, "wild", "still0") == 0
    assert order(found, "still0", "still1") == -1


def test_what_diverged_is_worse_than_what_did_not():
    found = results(a=[2.0, 2.1], gone=[None, 2.0], lost=[None, None])
    assert (order(found, "a", "gone"), order(found, "gone", "a")) == (-1, 1)
    assert order(found, "gone", "lost") == 0


def test_verdicts():
    near = (0.0, 0.001)
    found = results(**{
        row: [mean + x for x in near] for row, mean in
        dict(a=1.0, b=1.1, c=1.1004, d=1.3).items()
    })  # fmt: skip
    names = dict(zip("ABCD", "abcd", strict=True))
    paper = {"A": 2.0, "B": 2.3, "C": 2.5, "D": 2.1}
    assert verdicts(found, Table("letters", names, paper)) == {
        "agrees": ["A < B", "A < C", "A < D"],
        "differs": ["B < D", "C < D"],
        "unclear": ["B < C"],
        "new": [],
    }
    alike = {"A": 2.0, "B": 2.001, "C": 2.001, "D": 2.5}
    said = verdicts(found, Table("letters", names, alike))
    assert "B ≈ C" in said["agrees"] and "A < B" in said["differs"]
    said = verdicts(found, Table("letters", names, {}))
    assert said["unclear"] == ["B ≈ C"] and len(said["new"]) == 5
    del found["rows"]["b"]
    assert verdicts(found, Table("letters", names, paper))["unclear"] == []


@pytest.mark.bad_input
def test_results_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="make your own, transnormer-edu ablate"):
        measured(tmp_path / "none.json")
    (tmp_path / "some.json").write_text('{"rows": {}}')
    assert measured(tmp_path / "some.json") == {"rows": {}}
