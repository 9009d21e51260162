"""The road of the course: its lessons, each forced by what the one before leaves broken."""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from transnormer_edu.plots.style import BLUE, INK, Drawing, drawing, new_figure


class Lesson(NamedTuple):
    """One stop: its number, name and question, and what it leaves open for the next."""

    number: int
    name: str
    question: str
    leaves_open: str


ROAD = tuple(
    Lesson(number, *words)
    for number, words in enumerate(
        (
            ("start here", "What will I be able to do?", "it writes, but how?"),
            (
                "softmax attention",
                "What does a token look at?",
                "cost grows with n², memory with n",
            ),
            (
                "linear attention",
                "What if we drop the exponential?",
                "cheap, but it blurs the past",
            ),
            ("attention dilution", "Where does the attention go?", "far tokens drown near ones"),
            ("decay", "How does one forget well?", "it fades, but cannot tell places"),
            ("LRPE", "Where am I?", "positions turn; sizes still run wild"),
            ("norm, gate, block", "What holds it together?", "right, but slow: Python loops"),
            ("tiles", "Why is it not yet fast?", "memory traffic, not arithmetic, is the bill"),
            ("the kernel", "How does one write it?", "forward only: it cannot learn"),
            ("backward and speed", "Must I write it three times more?", "parts, but no model"),
            ("the model", "How do the parts make a model?", "built, but it knows nothing"),
            ("training", "Does it learn?", "it learned, now it must write"),
            ("inference", "What does the next token cost?", "one GPU is too small"),
            ("scaling out", "What if it does not fit one GPU?", "it scales, but at what?"),
            ("limits", "What can it not do?", "all that with models of our own"),
            ("the released models", "Can I trust a folder of weights?", "your own question"),
        )
    )
)


def lessons_here(folder: Path) -> dict[int, str]:
    """Number -> file name of the lessons that lie in `folder`."""
    return {int(path.name[:2]): path.name for path in sorted(folder.glob("[0-9][0-9]_*.ipynb"))}


def road_table(folder: Path) -> str:
    """The road as a Markdown table, with a link to each lesson that is there."""
    here = lessons_here(folder)
    lines = ["| lesson | question |", "|---|---|"]
    for lesson in ROAD:
        name = f"{lesson.number:02d} {lesson.name}"
        linked = (
            f"[{name}]({here[lesson.number]})" if lesson.number in here else f"{name} (to come)"
        )
        lines.append(f"| {linked} | {lesson.question} |")
    return "\n".join(lines)


@drawing
def road(here: Collection[int]) -> Drawing:
    """All stops from top to bottom; a filled stop is there, a hollow one is to come.

    Errors: ValueError for the number of a lesson that is not on the road.
    """
    strange = sorted(set(here) - {lesson.number for lesson in ROAD})
    if strange:
        raise ValueError(f"there is no lesson {strange[0]}, expected 0 to {len(ROAD) - 1}")
    figure = new_figure(7.6, 7.7)
    axes = figure.subplots()
    axes.plot([0] * len(ROAD), range(len(ROAD)), color=INK, linewidth=3, zorder=1)
    for y, lesson in enumerate(ROAD):
        there = lesson.number in here
        face = BLUE if there else "white"
        axes.scatter(0, y, s=420, facecolor=face, edgecolor=INK, linewidth=1.5, zorder=2)
        axes.text(
            0, y, str(lesson.number), ha="center", va="center", fontsize=10,
            color="white" if there else INK,
        )  # fmt: skip
        axes.text(0.35, y - 0.17, lesson.name, va="center", weight="bold")
        axes.text(0.35, y + 0.23, lesson.question, va="center", fontsize=9.5)
        axes.text(
            3.1, y + 0.5, f"↓ {lesson.leaves_open}", va="center", fontsize=9.5, style="italic"
        )
    axes.set(xlim=(-0.3, 6.9), ylim=(len(ROAD) - 0.2, -0.7))
    axes.axis("off")
    return figure, (
        f"The road of the course, from top to bottom: {len(ROAD)} stops, each with its question, "
        "and in italics what it leaves open, which forces the next stop. Filled: ready; hollow: "
        "to come."
    )
