"""The README's pictures and its map of the lessons, made from what the lessons themselves use.

    python -m transnormer_edu.front_page

Writes docs/pictures, and what stands between `<!-- NAME -->` and `<!-- end -->` in README.md and in
docs/teacher_guide.md. For authors: after a new lesson, exercise or result.
"""

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import matplotlib

from transnormer_edu.config import TransNormerConfig
from transnormer_edu.course import choose, project_root
from transnormer_edu.info import summarise
from transnormer_edu.plots.style import Drawing, drawing

FOLDER = "docs/pictures"
GUIDE = "docs/teacher_guide.md"


class Stop(NamedTuple):
    """A lesson on the map."""

    name: str
    path: Path
    question: str
    minutes: str


def stops(notebooks: Path) -> Iterator[Stop]:
    """The lessons in order, each with its question and the minutes that its reading takes."""
    from nbformat import read

    from transnormer_edu.notebook_pages import minutes_to_read
    from transnormer_edu.plots.road import ROAD

    for path in choose(notebooks, None):
        stop, minutes = ROAD[int(path.name[:2])], minutes_to_read(read(path, as_version=4))
        name = f"{stop.number:02d} {stop.name}"
        yield Stop(name, path, stop.question, f"{minutes} min" if minutes else "")


def lesson_map(notebooks: Path) -> str:
    """The map as a Markdown table for README.md."""
    lines = ["| lesson | question | to read |", "|---|---|--:|"]
    lines += [
        f"| [{stop.name}](notebooks/{stop.path.name}) | {stop.question} | {stop.minutes} |"
        for stop in stops(notebooks)
    ]
    return "\n".join(lines)


def pictures() -> dict[str, Drawing]:
    """File name -> the figure and its sentence."""
    from transnormer_edu.ablation import TABLES, measured
    from transnormer_edu.plots import ablation, memory, whole_model
    from transnormer_edu.speed.measured import curves, where
    from transnormer_edu.speed.measured import measured as speed

    config = TransNormerConfig.preset("385m")
    cache = 2 * config.layers * config.dim * 2  # key and value, each layer, two bytes a number
    lengths = [4**i for i in range(2, 11)]
    h200 = speed("h200")
    trained = curves(h200, "train", "tokens_per_s")
    kept = curves(h200, "train", "activation_bytes", scale=2**-30)
    return {
        "memory.svg": memory.state_and_cache(lengths, summarise(config).state_bytes, cache),
        "training.svg": whole_model.training(trained, kept, where(h200)),
        "ablation.svg": ablation.beside_the_paper([TABLES["positions"]], measured()),
    }


def parts(root: Path) -> dict[str, str]:
    """NAME -> what stands in README.md after `<!-- NAME -->`."""
    shown = {
        Path(name).stem: f"![{sentence}]({FOLDER}/{name})"
        for name, (_, sentence) in pictures().items()
    }
    return {"lessons": lesson_map(root / "notebooks"), **shown}


@drawing
def svg(figure) -> bytes:
    """The same figure, the same bytes: letters as outlines, no date, no random names."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "course", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", facecolor="white", metadata={"Date": None})
    return buffer.getvalue()


def write(root: Path) -> None:
    """Bring docs/pictures, README.md and the teacher's guide up to date."""
    (root / FOLDER).mkdir(parents=True, exist_ok=True)
    for name, (figure, _) in pictures().items():
        (root / FOLDER / name).write_bytes(svg(figure))
    for name, made in pages(root).items():
        page = root / name
        page.write_text(filled(page.read_text(encoding="utf-8"), made), encoding="utf-8")


def pages(root: Path) -> dict[str, dict[str, str]]:
    """Page -> its parts, as they are made anew."""
    from transnormer_edu.exercises import guide

    return {"README.md": parts(root), GUIDE: guide.parts(root)}


def filled(text: str, made: dict[str, str]) -> str:
    """A page with its parts made anew. Errors: ValueError for a part that has no place in it."""
    for name, part in made.items():
        place = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        if not place.search(text):
            raise ValueError(f"the page has no place <!-- {name} --> ... <!-- end -->")
        text = place.sub(lambda found, part=part: found[1] + part + found[2], text)
    return text


if __name__ == "__main__":
    write(project_root())
    sys.exit()
