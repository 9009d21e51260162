import pytest
from matplotlib.colors import to_rgba
from matplotlib.patches import Rectangle

from tests.plots.checks import assert_readable
from transnormer_edu.plots import scaling
from transnormer_edu.plots.style import BLUE, PALE

COLUMNS = {"1": {"weights": 40e9, "state": 60e9}, "2": {"weights": 20e9, "state": 30e9}}


def test_each_cut_halves_another_thing():
    figure, sentence = assert_readable(scaling.three_cuts(4, 6, 2))
    assert "2 whole texts" in sentence and "3 tokens of every text" in sentence
    counts = [_owners(axes) for axes in figure.axes]
    # 24 cells of texts and 12 of weights: halved, or white.
    assert counts == [(12, 12, 12), (12, 12, 12), (6, 6, 24)]


@pytest.mark.parametrize("sizes", [(3, 4, 4), (4, 5, 4), (4, 4, 0)])
def test_what_cannot_be_halved_is_not_drawn(sizes):
    with pytest.raises(ValueError, match="even number"):
        scaling.three_cuts(*sizes)


def test_parts_are_piled_up():
    figure, sentence = assert_readable(scaling.memory_by_parts(COLUMNS, 80e9, "GPUs (number)"))
    assert sentence == "GB on one GPU: 1: 100, 2: 50. It fits at 2."
    weights, state = figure.axes[0].containers
    assert [bar.get_height() for bar in weights] == [40, 20]
    assert [(bar.get_y(), bar.get_height()) for bar in state] == [(40, 60), (20, 30)]
    assert "nowhere" in scaling.memory_by_parts(COLUMNS, 8e9, "GPUs (number)")[1]


def test_the_mover_sets_all_bars():
    columns = {int(n): parts for n, parts in COLUMNS.items()}
    figure, move = scaling.memory_by_parts_mover(columns, 80e9)
    assert move(1) == "1: 100.0 GB together, which does not fit into 80 GB."
    assert [bar.get_width() for bar in figure.axes[0].patches] == [40, 60]
    assert move(2) == "2: 50.0 GB together, which fits into 80 GB."
    assert [bar.get_width() for bar in figure.axes[0].patches] == [20, 30]


@pytest.mark.bad_input
@pytest.mark.parametrize("broken", [{}, {"a": {"x": 1.0}, "b": {"y": 1.0}}, {"a": {}}])
def test_parts_must_agree(broken):
    for draw in (
        lambda: scaling.memory_by_parts(broken, 1e9, "GPUs (number)"),
        lambda: scaling.memory_by_parts_mover(broken, 1e9),
    ):
        with pytest.raises(ValueError, match="expected at least one column"):
            draw()


def _owners(axes):
    boxes = [box for box in axes.patches if isinstance(box, Rectangle)]
    colours = [box.get_facecolor() for box in boxes]
    return tuple(colours.count(to_rgba(colour)) for colour in (BLUE, PALE, "white"))
