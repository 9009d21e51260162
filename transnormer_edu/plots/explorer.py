"""Explore attention maps: choose text, model, layer and head, see the map, keep its numbers."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import ipywidgets as widgets
import torch
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import Tensor

from transnormer_edu.dilution import attention_maps, attention_mass, save_map
from transnormer_edu.model import LanguageModel
from transnormer_edu.plots.dilution import NEAR, SHARES, draw_map, flat_line, mean_mass, seen_mass
from transnormer_edu.plots.moving import quick_png
from transnormer_edu.plots.style import BLUE, drawing, new_figure
from transnormer_edu.tokenizer import Tokenizer

AWAY = "An explorer stands here when the lesson runs: make lab. The figures above are complete."
NAMED = 24  # up to so many tokens stand at the axes by name
MOST = 128  # tokens that are read
LABEL = "4rem"  # width of the words before the choices


class MapFigure:
    """One figure, kept: a map on the left, its local mass on the right.

    `draw` changes the two, `png` gives the picture of them.
    """

    @drawing
    def __init__(self):
        self.figure = new_figure(7.5, 4.7)
        self.figure.set_layout_engine("none")  # places are fixed: no time for finding them
        self.map_axes = self.figure.add_axes((0.145, 0.2, 0.47, 0.75))
        self.mass_axes = self.figure.add_axes((0.7, 0.32, 0.28, 0.48))
        self.image = draw_map(self.map_axes, torch.eye(2))
        self.map_axes.set(xlabel="is looked at (token s)", ylabel="reads (token t)")
        flat_line(self.mass_axes)
        self.mass_axes.annotate("flat", (70, 54), fontsize=10)
        self.mass_axes.set_xticks([0, 40, 100])
        (self.line,) = self.mass_axes.plot([], [], color=BLUE, linewidth=2.5)
        self.canvas, self.tokens, self.background = FigureCanvasAgg(self.figure), None, None
        self.image.set_animated(True)  # drawn by `png` alone
        self.line.set_animated(True)

    def draw(self, weights: Float[Tensor, "n n"], tokens: Sequence[str]) -> str:
        """Show this map; the sentence says what is to be seen."""
        if tokens != self.tokens:
            self._name(tokens)
        mass = mean_mass(weights)
        self.image.set_data(seen_mass(weights))
        self.line.set_data(100 * SHARES, mass)
        sentence = f"The nearest 40 % hold {mass[NEAR]:.0f} % of the mass"
        negative = 100 * attention_mass(weights)[weights < 0].sum() / len(weights)
        return sentence + (f"; {negative:.0f} % of it has a minus sign." if negative else ".")

    def _name(self, tokens: Sequence[str]) -> None:
        """Tokens by name where there is room, else by number from 1."""
        n, axes = len(tokens), self.map_axes
        self.image.set_extent((0.5, n + 0.5, n + 0.5, 0.5))
        axes.set(xlim=(0.5, n + 0.5), ylim=(n + 0.5, 0.5))
        if n <= NAMED:
            places, names = range(1, n + 1), [shown(token) for token in tokens]
        else:
            places = range(1, n + 1, -(-n // 8))
            names = [str(place) for place in places]
        axes.set_xticks(places, names, fontsize=9, rotation=90, parse_math=False)
        axes.set_yticks(places, names, fontsize=9, parse_math=False)  # a token may be $$
        self.tokens, self.background = list(tokens), None

    @drawing
    def png(self) -> bytes:
        """The picture. What stays from map to map, all the letters, is drawn once for a text."""
        if self.background is None:
            self.canvas.draw()
            self.background = self.canvas.copy_from_bbox(self.figure.bbox)
        self.canvas.restore_region(self.background)
        self.map_axes.draw_artist(self.image)
        self.mass_axes.draw_artist(self.line)
        return quick_png(self.canvas)


class Explorer(widgets.VBox):
    """The widgets above one `MapFigure`; where nothing can draw them, words say what stands here.

    models      name -> model; all of as many layers and heads, all with this tokenizer
    text        what is read first
    folder      where "Save as CSV" puts its files, see `save_map`
    Errors: ValueError for no model, or models of different numbers of layers or heads.
    """

    def __init__(
        self,
        models: Mapping[str, LanguageModel],
        tokenizer: Tokenizer,
        text: str,
        folder: str | Path,
    ):
        sizes = {(model.config.layers, model.config.heads) for model in models.values()}
        if len(sizes) != 1:
            raise ValueError(f"got models of (layers, heads) {sizes}; expected the same for all")
        self.models, self.tokenizer, self.folder = dict(models), tokenizer, Path(folder)
        self.map_figure, self.maps = MapFigure(), {}
        self.picture = widgets.Image(format="png", layout={"width": "750px", "max_width": "100%"})
        self.words, self.saved = widgets.Label(), widgets.Label()
        self.button = widgets.Button(description="Save as CSV", icon="download")
        self.button.on_click(lambda button: self.save())
        choices = self._choices(text, *sizes.pop())
        keep = widgets.HBox([self.button, self.saved])
        self.redraw()
        super().__init__([*choices, self.picture, self.words, keep])

    def _choices(self, text: str, layers: int, heads: int) -> list[widgets.Widget]:
        layout, style = {"width": "46rem"}, {"description_width": LABEL}
        self.text = widgets.Text(
            text, description="text", continuous_update=False, layout=layout, style=style
        )
        self.method = _choice("method", list(self.models), "9rem")
        self.layer = _choice("layer", range(layers), "2.5rem")
        self.head = _choice("head", range(1, heads + 1), "2.5rem")
        self.head.layout.margin = "0 0 0 2rem"
        for handle in (self.text, self.method, self.layer, self.head):
            handle.observe(lambda change: self.redraw(), names="value")
        return [self.text, self.method, widgets.HBox([self.layer, self.head])]

    def _repr_mimebundle_(self, **kwargs):
        return super()._repr_mimebundle_(**kwargs) | {"text/plain": AWAY}

    def redraw(self) -> None:
        """Show what is chosen; the models read a text once."""
        weights, tokens = self.chosen()
        self.words.value, self.saved.value = self.map_figure.draw(weights, tokens), ""
        self.picture.value = self.map_figure.png()

    def chosen(self) -> tuple[Float[Tensor, "n n"], list[str]]:
        """The map that is chosen, and its tokens."""
        ids = [self.tokenizer.bos_id, *self.tokenizer.encode(self.text.value)][:MOST]
        if self.text.value not in self.maps:
            self.maps = {self.text.value: self._read(torch.tensor([ids]))}
        tokens = [self.tokenizer.decode([i]) or "<s>" for i in ids]
        layers = self.maps[self.text.value][self.method.value]
        return layers[self.layer.value][0, self.head.value - 1], tokens

    def _read(self, ids: Tensor) -> dict[str, list[Tensor]]:
        """The maps of all models, so that changing the model costs no more than changing a head."""
        return {name: attention_maps(model, ids) for name, model in self.models.items()}

    def save(self) -> None:
        """Write the chosen map and its local mass as CSV, and say where."""
        name = f"{self.method.value} layer {self.layer.value} head {self.head.value}"
        name += f" {self.text.value[:24]}"  # another text, another file
        weights, tokens = self.chosen()
        files = save_map(self.folder, re.sub(r"\W+", "_", name).strip("_"), weights, tokens)
        self.saved.value = "Saved: " + ", ".join(str(file) for file in files)


def shown(token: str) -> str:
    """A token as an axis can bear it: at most nine signs, a space visible as ·."""
    token = token.replace(" ", "·").replace("\n", "↵")
    return token if len(token) <= 9 else token[:8] + "…"


def _choice(name: str, options: Sequence, width: str) -> widgets.ToggleButtons:
    style = {"description_width": LABEL, "button_width": width}
    return widgets.ToggleButtons(options=list(options), description=name, style=style)
