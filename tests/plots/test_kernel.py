import pytest
import torch
from matplotlib.patches import Rectangle

from tests.plots.checks import assert_readable
from transnormer_edu.plots import kernel
from transnormer_edu.resources import Resources

ROW, COL = torch.arange(5)[:, None], torch.arange(7)[None, :]
OWNER = (ROW // 2) * 2 + COL // 4  # a grid of 3 x 2, tiles of 2 x 4
OWNERS = {block: [row // block for row in range(10)] for block in (2, 4, 8)}
FOUND = {
    16: Resources(180, 0, 65536),
    64: Resources(255, 0, 163840),
    128: Resources(255, 272, 294912),
}


def boxes(axes):
    """(x, y, width, height) of each program's outline."""
    patches = [p for p in axes.patches if isinstance(p, Rectangle) and not p.get_fill()]
    return [(*p.get_xy(), p.get_width(), p.get_height()) for p in patches]


def labels(axes):
    return [text.get_text() for text in axes.texts if text.get_text()]


def test_programs_over_a_tensor():
    figure, sentence = assert_readable(kernel.programs({"x": OWNER}, grid=(3, 2), tile=(2, 4)))
    assert "6 programs share 35 cells." in sentence
    assert "Hatched: 13 places" in sentence  # 6 x 8 - 35
    (axes,) = figure.axes
    assert labels(axes) == [f"program\n({i}, {j})" for i in range(3) for j in range(2)]
    assert boxes(axes) == [(x, y, 4, 2) for y in (0, 2, 4) for x in (0, 4)]
    (image,) = axes.images
    assert image.get_array().tolist() == ((ROW // 2 + COL // 4) % 2).tolist()


def test_the_label_is_what_the_kernel_wrote():
    other = OWNER.clone()
    other[0, 0] = 5
    (axes,) = kernel.programs({"x": other}, grid=(3, 2), tile=(2, 4))[0].figure.axes
    assert labels(axes)[0] == "program\n(2, 1)"


def test_programs_that_walk():
    heads = {f"head {h}": (h * 2 + COL // 4).expand(5, 7) for h in range(2)}
    figure, sentence = assert_readable(kernel.programs(heads, (1, 2), tile=(6, 4), step=2))
    assert "4 programs share 70 cells, each from top to bottom in steps of 2 rows" in sentence
    assert "26 places" in sentence
    first, second = figure.axes
    assert labels(first) + labels(second) == [
        "(0, 0)",
        "(0, 1)",
        "(1, 0)",
        "(1, 1)",
    ]
    assert [line.get_ydata()[0] for line in first.lines] == [2, 4, 2, 4]


def test_blocks_over_rows():
    figure, sentence = assert_readable(kernel.coverage(OWNERS))
    assert "0 with 2, 2 with 4, 6 with 8." in sentence
    (axes,) = figure.axes
    assert labels(axes) == [*"01234", *"012", *"01"]
    assert [box[2] for box in boxes(axes)] == [2] * 5 + [4] * 3 + [8] * 2
    assert axes.lines[0].get_xdata()[0] == 10


def test_the_mover_sets_the_length():
    figure, move = kernel.coverage_mover(4, range(1, 11))
    assert move(10) == "10 rows in blocks of 4: programs 3, places beyond the end 2."
    (axes,) = figure.axes
    assert labels(axes) == [*"012"]
    assert list(axes.lines[0].get_xdata()) == [10, 10]
    assert axes.get_xlim()[1] > 12  # the last block of the longest text
    before = len(axes.patches)
    assert "programs 2, places beyond the end 0." in move(8)
    assert labels(axes) == [*"01"]
    move(10)
    assert len(axes.patches) == before  # nothing is left of the other position


def test_what_a_chunk_costs():
    figure, sentence = assert_readable(kernel.chunk_costs(FOUND, state=64))
    assert sentence == (
        "Chunks of 16 and 64 rows fit. Registers spill with 128; more shared memory than there is: "
        "128."
    )
    left, right = figure.axes
    assert [bar.get_height() for bar in left.patches][:3] == [180, 255, 255]
    assert left.patches[-1].get_height() == 272 / 4  # bytes as registers
    assert [bar.get_height() for bar in right.patches] == [65.536, 163.84, 294.912]
    assert [line.get_ydata()[0] for line in left.lines] == [255, 64]
    assert [line.get_ydata()[0] for line in right.lines] == [232.448]


def test_nothing_spills():
    fitting = {16: FOUND[16]}
    assert "fit. Registers spill with none" in kernel.chunk_costs(fitting, state=64)[1]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: kernel.programs({}, (1, 1), (1, 1)),
        lambda: kernel.programs({"x": OWNER}, (2, 2), (2, 4)),
        lambda: kernel.coverage({}),
        lambda: kernel.coverage({2: [0, 0], 4: [0]}),
        lambda: kernel.coverage_mover(0, [3]),
        lambda: kernel.coverage_mover(4, []),
        lambda: kernel.coverage_mover(4, [0, 3]),
        lambda: kernel.chunk_costs({}, 64),
        lambda: kernel.chunk_costs({16: Resources(refused="no")}, 64),
    ],
)
def test_broken_input(draw):
    with pytest.raises(ValueError, match="expected"):
        draw()
