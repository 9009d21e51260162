import statistics

import pytest

from tests.plots.checks import assert_readable
from transnormer_edu.ablation import TABLES
from transnormer_edu.plots.ablation import beside_the_paper, over_tokens


def row(*losses):
    whole = None not in losses
    return {
        "parameters": 9_175_296,
        "mean": statistics.fmean(losses) if whole else None,
        "spread": statistics.stdev(losses) if whole and len(losses) > 1 else None,
        "runs": [{"loss": loss} for loss in losses],
    }


RESULTS = {
    "rows": {
        "base": row(2.00, 2.01, 2.02),
        "absolute": row(2.50, 2.51, 2.52),
        "exp_decay": row(1.90, 1.91, 1.92),
        "lrpe": row(2.012, 2.022, 2.032),
        "lrpe_d": row(None, 2.0, 2.0),
        "paper_decay": row(2.1, 2.12, 2.11),
    }
}


def test_a_table_beside_the_papers():
    table = TABLES["positions"]
    figure, sentence = assert_readable(beside_the_paper([table], RESULTS))
    paper, here = figure.axes
    assert list(paper.lines[0].get_xdata()) == [table.paper[name] for name in table.rows]
    assert [text.get_text() for text in paper.get_yticklabels()] == list(table.rows)
    seeds = [list(line.get_xdata()) for line in here.lines if line.get_marker() == "D"]
    assert seeds[:2] == [[2.00, 2.01, 2.02], [2.50, 2.51, 2.52]]
    assert seeds[4] == [2.0, 2.0] and here.texts[0].get_text() == "diverged"
    means = [bar.lines[0].get_xdata()[0] for bar in here.containers]
    assert means == pytest.approx([2.01, 2.51, 1.91, 2.022])
    assert "As in the paper: Mix < APE, Exp-Decay < APE, LRPE < APE, Exp-Decay < LRPE." in sentence
    assert "Unlike the paper: Exp-Decay < Mix" in sentence and "Mix < LRPE-d" in sentence
    assert "Spread too wide to tell: Mix < LRPE." in sentence
    assert "Diamonds: 3 seeds; bars: their mean and spread, 0.01 nats per token in all." in sentence


def test_a_table_that_the_paper_does_not_have():
    figure, sentence = assert_readable(beside_the_paper([TABLES["schedule"]], RESULTS))
    assert len(figure.axes) == 1
    assert "Told apart: released < as printed." in sentence


def test_many_tables_share_a_scale():
    tables = [TABLES["positions"], TABLES["schedule"]]
    figure, sentence = assert_readable(beside_the_paper(tables, RESULTS))
    first, here, other, below = figure.axes
    assert here.get_xlim() == below.get_xlim() and first.get_ylim() == here.get_ylim()
    assert other.texts[0].get_text() == "not in the paper" and not other.lines
    assert [text.get_text() for text in other.get_yticklabels()] == ["released", "as printed"]
    assert "Mix < LRPE" in sentence and sentence.count("Diamonds") == 1
    assert "Decay schedule. Told apart: released < as printed." in sentence
    with pytest.raises(ValueError, match="got no table, expected at least one"):
        beside_the_paper([], RESULTS)


def test_rows_that_were_not_trained_are_left_out():
    some = {"rows": {name: RESULTS["rows"][name] for name in ("base", "absolute")}}
    figure, sentence = beside_the_paper([TABLES["positions"]], some)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["Mix", "APE"]
    assert "LRPE" not in sentence
    with pytest.raises(ValueError, match="1 rows of 'Gate' were trained, expected at least two"):
        beside_the_paper([TABLES["gate"]], some)


def test_a_row_with_fewer_seeds_is_said():
    rows = RESULTS["rows"] | {"paper_decay": row(2.1)}
    _, sentence = beside_the_paper([TABLES["schedule"]], {"rows": rows})
    assert "Diamonds: 1 to 3 seeds" in sentence


def curves(*losses):
    """A row whose runs have these losses after 1 and 2 million tokens."""
    runs = [{"loss": b, "curve": [[1_000_000, a], [2_000_000, b]]} for a, b in losses]
    return {"mean": statistics.fmean(b for _, b in losses), "runs": runs}


def test_who_leads_may_change_on_the_way():
    results = {"rows": {"base": curves((4.0, 3.2), (4.2, 3.0)), "transformer": curves((5.0, 2.9))}}
    names = {"linear": "base", "softmax": "transformer"}
    figure, sentence = assert_readable(over_tokens(results, names))
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(lines["linear"].get_xdata()) == [1.0, 2.0]
    assert list(lines["linear"].get_ydata()) == pytest.approx([4.1, 3.1])
    assert sentence == (
        "After 1 million tokens linear has the lowest loss, after 2 million softmax."
    )


@pytest.mark.parametrize("bad", [{"LRPE-d": "lrpe_d"}, {"no gate": "no_gate"}])
def test_a_curve_needs_runs_that_ended(bad):
    with pytest.raises(ValueError, match="have no loss in the results, expected trained ones"):
        over_tokens(RESULTS, bad)
