import csv

import numpy as np
import pytest
import torch

from tests.models import linear, softmax
from transnormer_edu.dilution import attention_maps, attention_mass, local_mass
from transnormer_edu.plots.dilution import SHARES
from transnormer_edu.plots.explorer import MOST, Explorer, MapFigure, shown
from transnormer_edu.tokenizer import Tokenizer

TEXT = "a bee"


@pytest.fixture
def tokenizer():
    return Tokenizer.of_bytes()


@pytest.fixture
def models(tokenizer):
    changes = dict(vocab_size=tokenizer.vocab_size, dtype=torch.float32)
    return {"softmax": softmax(**changes, heads=2), "linear": linear(**changes, heads=2)}


@pytest.fixture
def explorer(models, tokenizer, tmp_path):
    return Explorer(models, tokenizer, TEXT, tmp_path / "maps")


def drawn(explorer):
    image = explorer.map_figure.image.get_array()
    return np.ma.filled(image, 0), explorer.map_figure.line.get_ydata()


def test_it_shows_the_map_that_is_chosen(explorer, models, tokenizer):
    ids = torch.tensor([[tokenizer.bos_id, *tokenizer.encode(TEXT)]])
    pictures = set()
    for method, layer, head in (("softmax", 0, 1), ("linear", 2, 2), ("linear", 1, 1)):
        explorer.method.value, explorer.layer.value, explorer.head.value = method, layer, head
        weights = attention_maps(models[method], ids)[layer][0, head - 1]
        shades, curve = drawn(explorer)
        np.testing.assert_allclose(shades, attention_mass(weights), rtol=1e-5)
        np.testing.assert_allclose(curve, 100 * local_mass(weights, SHARES), rtol=1e-5)
        assert f"{curve[16]:.0f} % of the mass" in explorer.words.value
        pictures.add(bytes(explorer.picture.value))
    assert len(pictures) == 3
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)


def test_map_curve_and_names_are_in_the_picture():
    figure, weights = MapFigure(), torch.ones(3, 3).tril()
    figure.draw(weights, ["a", "b", "c"])
    pictures = [figure.png()]
    assert figure.png() == pictures[0]
    figure.line.set_ydata(figure.line.get_ydata() / 2)
    pictures.append(figure.png())
    figure.image.set_data(torch.eye(3).numpy())
    pictures.append(figure.png())
    figure.draw(weights, ["a", "b", "d"])
    pictures.append(figure.png())
    assert len(set(pictures)) == 4


def test_dollars_are_no_equation():
    figure = MapFigure()
    figure.draw(torch.ones(2, 2).tril(), ["$\\no$", "$$"])
    assert figure.png()


def test_it_is_a_figure_that_can_be_read():
    figure = MapFigure()
    figure.draw(torch.ones(3, 3).tril(), ["a", "b", "c"])
    labels = [(axes.get_xlabel(), axes.get_ylabel()) for axes in figure.figure.axes]
    assert labels == [
        ("is looked at (token s)", "reads (token t)"),
        ("nearest tokens (%)", "mass in them (%)"),
    ]
    texts = figure.figure.findobj(lambda artist: hasattr(artist, "get_fontsize"))
    assert min(text.get_fontsize() for text in texts if text.get_text()) >= 9


def test_a_minus_sign_is_told(explorer):
    explorer.method.value = "softmax"
    assert "minus" not in explorer.words.value
    figure = MapFigure()
    weights = torch.tensor([[1.0, 0.0], [-1.0, 1.0]])
    assert figure.draw(weights, ["a", "b"]).endswith("; 25 % of it has a minus sign.")


def test_another_text(explorer, tokenizer):
    explorer.text.value = "x y"
    names = [label.get_text() for label in explorer.map_figure.map_axes.get_yticklabels()]
    assert names == ["<s>", "x", "·", "y"]
    explorer.text.value = "z" * 500
    names = [label.get_text() for label in explorer.map_figure.map_axes.get_yticklabels()]
    assert drawn(explorer)[0].shape == (MOST, MOST)
    assert names[:2] == ["1", "17"]


def test_the_csv_holds_what_is_shown(explorer):
    explorer.method.value, explorer.layer.value, explorer.head.value = "linear", 1, 2
    explorer.button.click()
    folder = explorer.folder
    name = f"linear_layer_1_head_2_{TEXT.replace(' ', '_')}"
    with open(folder / f"{name}_map.csv", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    shades, _ = drawn(explorer)
    assert len(lines) == 6 * 7 / 2
    for line in lines:
        t, s = int(line["t"]) - 1, int(line["s"]) - 1
        assert float(line["mass"]) == pytest.approx(shades[t, s], rel=1e-4)
    assert (lines[1]["token t"], lines[1]["token s"]) == ("a", "<s>")
    assert (folder / f"{name}_local_mass.csv").is_file()
    assert f"{name}_map.csv" in explorer.saved.value
    explorer.text.value = "ab"
    explorer.button.click()
    assert len(list(folder.glob("*.csv"))) == 4, "another text has taken the place of the first"


def test_where_no_kernel_runs_words_stand_there(explorer):
    assert "make lab" in explorer._repr_mimebundle_()["text/plain"]


def test_long_tokens_and_spaces():
    assert shown(" documentation") == "·documen…"
    assert shown("\n") == "↵"


@pytest.mark.bad_input
def test_models_of_one_size(models, tokenizer, tmp_path):
    with pytest.raises(ValueError, match="expected the same for all"):
        Explorer(models | {"other": linear(layers=2, lrpe_layers=())}, tokenizer, TEXT, tmp_path)
    with pytest.raises(ValueError, match="expected the same for all"):
        Explorer({}, tokenizer, TEXT, tmp_path)
