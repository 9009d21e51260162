import pytest
import torch
from torch import nn

from tests.models import linear, softmax
from tests.plots.checks import assert_readable, assert_told_apart_without_colour
from transnormer_edu import TransNormerConfig, TransNormerLLM
from transnormer_edu.plots.model import (
    gigabytes,
    loss_after_blocks,
    memory,
    memory_mover,
    module_tree,
    over_context,
    shares,
    short,
    tree_rows,
)

TRAINING = {100: {"weights": 8e9, "activations": 1e9}, 3000: {"weights": 8e9, "activations": 3e11}}
WRITING = {100: {"cache": 2e8}, 3000: {"cache": 6e9}}


@pytest.mark.parametrize("model", [linear(), softmax()], ids=["linear", "softmax"])
def test_every_module_is_in_the_tree_or_in_an_equal_one(model):
    rows = tree_rows(model)
    folded = [row for row in rows if row.copies > 1]
    inside = {row.name: len(tree_rows(model.model["layers"][int(row.name[0])])) for row in folded}
    hidden = sum((row.copies - 1) * inside[row.name] for row in folded)
    assert len(rows) + hidden == len(list(model.modules()))
    assert rows[0].parameters == sum(p.numel() for p in model.parameters())
    for name, parameter in model.named_parameters():
        owner = name.split(".")[-2]
        shape = " × ".join(map(str, parameter.shape))
        assert any((row.name, row.shape) == (owner, shape) for row in rows), name


def test_equal_layers_are_drawn_once_and_others_are_not():
    """Layers 0 and 2 have LRPE: three different neighbours. With LRPE in 0 alone, 1 equals 2."""
    names = [row.name for row in tree_rows(linear())]
    assert {"0", "1", "2"} <= set(names)
    rows = tree_rows(linear(lrpe_layers=(0,)))
    assert [(row.name, row.copies) for row in rows if row.name[0].isdigit()] == [
        ("0", 1),
        ("1–2", 2),
    ]
    assert sum(row.kind == "LRPE" for row in rows) == 1


def test_shapes_count_in_what_is_equal():
    layers = nn.ModuleList([nn.Linear(3, 5), nn.Linear(3, 5), nn.Linear(3, 7), nn.Linear(3, 5)])
    rows = tree_rows(layers)[1:]
    assert [(row.name, row.copies) for row in rows] == [("0–1", 2), ("2", 1), ("3", 1)]
    assert rows[0].parameters == 20  # of one


def test_the_smallest_released_model_as_a_picture():
    with torch.device("meta"):
        model = TransNormerLLM(TransNormerConfig.preset("385m"))
    figure, sentence = assert_readable(module_tree(model))
    assert sentence == (
        "TransNormerLLM: 28 boxes, 398,984,192 parameters. 1–23: 23 equal ones, drawn once."
    )
    (axes,) = figure.axes
    words = [text.get_text() for text in axes.texts]
    assert {"qkvu_proj", "4096 × 1024", "8 × 1 × 128", "nothing learned"} <= set(words)
    assert "23 × 13,893,632" in words
    boxes = sorted((patch.get_bbox() for patch in axes.patches), key=lambda box: box.y0)
    assert len(boxes) == 28
    for row, box in zip(tree_rows(model), boxes, strict=True):
        around = [b for b in boxes if b.x0 < box.x0 and b.y0 < box.y0 and b.y1 > box.y1]
        assert len(around) == row.depth  # each inside all that it belongs to, and nothing else


def test_shares_add_up_to_the_whole():
    counts = {
        "small": {"embedding": 3_000_000, "blocks": 1_000_000},
        "middle": {"embedding": 1, "blocks": 1},
        "large": {"embedding": 1_000_000, "blocks": 3_000_000_000},
    }
    figure, sentence = assert_readable(shares(counts))
    assert sentence.startswith("small: embedding 75.0 %, blocks 25.0 %; large: embedding 0.0 %")
    bars = [(bar.get_x(), bar.get_width()) for bar in figure.axes[0].patches]
    assert bars[0] == (0, 75) and bars[3] == (75, 25)  # small: the blocks begin where E ends
    assert bars[1] == (0, 50) and bars[4] == (50, 50)
    assert [text.get_text() for text in figure.axes[0].texts] == ["4M", "2e-06M", "3B"]
    hatches = {bar.get_hatch() for bar in figure.axes[0].patches}
    assert len(hatches) == 2
    with pytest.raises(ValueError, match="the same 1 to 3 parts"):
        shares({"one": {"a": 1}, "two": {"b": 1}})
    with pytest.raises(ValueError, match="at least one model"):
        shares({})


def test_losses_stand_beside_blind_guessing():
    losses = {"new": [10.26, 7.7], "trained": [15.0, 7.0, 3.5]}
    figure, sentence = assert_readable(loss_after_blocks(losses, 7.62))
    expected = "new from 10.3 to 7.7; trained from 15.0 to 3.5. ln V is 7.6."
    assert sentence.endswith(expected)
    chance, new, trained = figure.axes[0].lines
    assert set(chance.get_ydata()) == {7.62}
    assert list(new.get_ydata()) == losses["new"] and list(trained.get_xdata()) == [0, 1, 2]
    assert_told_apart_without_colour(figure.axes[0])
    for broken in ({}, {"empty": []}):
        with pytest.raises(ValueError, match="each with losses"):
            loss_after_blocks(broken, 7.62)


def test_over_context_says_what_grows():
    costs = {"flat": [5.0, 5.0], "grows": [2.0, 9.0]}
    figure, sentence = assert_readable(over_context([10, 2000], costs, "work (FLOP)"))
    assert sentence == "From 10 to 2,000 tokens: flat × 1; grows × 4.5."
    assert "a × 1,024." in over_context([1, 1024], {"a": [4.0, 4096.0]}, "cache (bytes)")[1]
    assert_told_apart_without_colour(figure.axes[0])
    assert list(figure.axes[0].lines[1].get_ydata()) == [2, 9]
    for lengths, broken in (([1], costs), ([1, 2], {}), ([0, 1], costs), ([1, 2], {"a": [0, 1]})):
        with pytest.raises(ValueError, match="expected"):
            over_context(lengths, broken, "work (FLOP)")


def test_memory_has_a_bar_for_each_part_and_one_for_what_training_needs_at_once():
    figure, sentence = assert_readable(memory(TRAINING, WRITING))
    assert sentence == (
        "100 tokens: training takes 9 GB, most of it in weights; 3,000 tokens: training takes "
        "308 GB, most of it in activations. Dotted: one GPU of 80 GB."
    )
    few, many = figure.axes
    assert [bar.get_width() for bar in few.patches] == pytest.approx([8, 1, 9, 0.2])
    assert [bar.get_width() for bar in many.patches] == pytest.approx([8, 300, 308, 6])
    assert few.lines[0].get_xdata()[0] == 80
    assert [text.get_text() for text in many.texts] == ["8", "300", "308", "6"]
    names = [label.get_text() for label in few.get_yticklabels()]
    assert names == ["weights", "activations", "training, together", "cache"]
    assert {bar.get_hatch() for bar in few.patches[:2]} == {None} != {few.patches[2].get_hatch()}


def test_memory_moves():
    figure, move = memory_mover(TRAINING, WRITING)
    widths = []
    for n, said in ((100, "9 GB, most of it in weights."), (3000, "308 GB, most of it in activ")):
        assert said in move(n)
        widths.append([bar.get_width() for bar in figure.axes[0].patches])
    assert widths == [pytest.approx([8, 1, 9, 0.2]), pytest.approx([8, 300, 308, 6])]
    assert_readable((figure, move(100)))


@pytest.mark.parametrize(
    "training, writing",
    [
        ({}, {}),
        (dict.fromkeys(range(4), TRAINING[100]), dict.fromkeys(range(4), WRITING[100])),
        ({1: {"a": 1.0}, 2: {"b": 1.0}}, dict.fromkeys((1, 2), WRITING[100])),
        (TRAINING, {100: WRITING[100]}),
    ],
)
def test_broken_memory(training, writing):
    with pytest.raises(ValueError, match="expected"):
        memory(training, writing)
    if len(training) < 4:
        with pytest.raises(ValueError, match="the same parts"):
            memory_mover(training, writing)


def test_numbers_as_words():
    assert [short(n) for n in (398_984_192, 6_836_719_616)] == ["399M", "6.84B"]
    assert [gigabytes(n) for n in (6.54e9, 1.7e11, 2.8e12)] == ["6.5", "170", "2,800"]
