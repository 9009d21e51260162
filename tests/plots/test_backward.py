import pytest

from tests.plots.checks import assert_readable
from transnormer_edu.plots.backward import two_walks


def test_two_walks():
    figure, sentence = assert_readable(two_walks([8, 12, 11], [2.5, 3, 2], 0.25))
    assert "forward, 8, 12, 11," in sentence
    assert "runs back, 2, 3, 2.5 from the last token" in sentence
    said = [text.get_text() for text in figure.axes[0].texts]
    assert {"$S_1=8$", "$S_3=11$", "$G_1=2.5$", "$G_3=2$"} < set(said)
    assert said.count("× 0.25") == 4
    assert said.count("+ k v") == said.count("+ q do") == 3


def test_arrows_point_the_way_of_each_walk():
    figure, _ = two_walks([8, 12], [3, 2], 0.5)
    arrows = [note for note in figure.axes[0].texts if getattr(note, "arrow_patch", None)]
    along = {note.xy[1]: note.xy[0] - note.xyann[0] for note in arrows if note.xy[1] in (1, -1)}
    assert along[1] > 0 > along[-1]


@pytest.mark.parametrize("states, grads", [([1.0], [1.0]), ([1.0, 2.0], [1.0]), ([], [])])
def test_broken_input(states, grads):
    with pytest.raises(ValueError, match="expected"):
        two_walks(states, grads, 0.5)
