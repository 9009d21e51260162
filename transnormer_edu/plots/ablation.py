"""The paper's tables beside the same tables at small scale, with the spread between seeds."""

from collections.abc import Sequence
from statistics import fmean
from textwrap import wrap

from matplotlib.axes import Axes

from transnormer_edu.ablation import Table, pooled_spread, verdicts
from transnormer_edu.plots.style import (
    BLUE,
    INK,
    LINES,
    ORANGE,
    Drawing,
    drawing,
    need_few,
    new_figure,
)

SAID = {
    "agrees": "As in the paper",
    "differs": "Unlike the paper",
    "unclear": "Spread too wide to tell",
    "new": "Told apart",
}


@drawing
def beside_the_paper(tables: Sequence[Table], results: dict) -> Drawing:
    """Losses of these tables: the paper's on the left where it has them, those measured here right.

    results   what `ablate` returned or `ablation.measured` reads; diamonds are single seeds, and
              above them their mean with one standard deviation to each side

    Tables in one figure have one scale, so that differences can be compared between them. The
    sentence sorts the pairs of rows by `ablation.verdicts`.
    Errors: ValueError for no table, or where fewer than two of a table's rows were trained.
    """
    if not tables:
        raise ValueError("got no table, expected at least one")
    trained = [_trained(table, results) for table in tables]
    columns = 2 if any(table.paper for table in tables) else 1
    heights = [0.6 + len(names) for names in trained]
    figure = new_figure(7.5, 0.9 + 0.36 * sum(heights))
    panels = figure.subplots(
        len(tables), columns, sharex="col", sharey="row", squeeze=False, height_ratios=heights
    )
    for row, table, names in zip(panels, tables, trained, strict=True):
        _draw_table([*row], table, names, results)
    figure.align_ylabels(panels[:, 0])
    size = results["rows"][tables[0].rows[trained[0][0]]]["parameters"] / 1e6
    if columns == 2:
        panels[0, 0].set_title("the paper, 385M parameters")
        panels[-1, 0].set_xlabel("loss (as printed)")
    panels[0, -1].set_title(f"here, {size:.0f}M parameters")
    panels[-1, -1].set_xlabel("loss (nats per token)")
    return figure, _sentence(tables, results)


def _trained(table: Table, results: dict) -> list[str]:
    names = [name for name, row in table.rows.items() if row in results["rows"]]
    if len(names) < 2:
        raise ValueError(
            f"{len(names)} rows of '{table.title}' were trained, expected at least two"
        )
    return names


def _draw_table(panels: Sequence[Axes], table: Table, names: list[str], results: dict) -> None:
    """One table: the paper's panel, if there are two, and ours."""
    if table.paper:
        panels[0].plot([table.paper[name] for name in names], range(len(names)), "o", color=INK)
    elif len(panels) == 2:
        panels[0].text(
            0.5, 0.5, "not in the paper", transform=panels[0].transAxes, ha="center", va="center"
        )
    for place, name in enumerate(names):
        _draw_row(panels[-1], place, results["rows"][table.rows[name]])
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    label = {"rotation": 0, "ha": "right", "va": "center"} if len(names) < 4 else {}
    panels[0].set_ylabel("\n".join(wrap(table.title, 12)) if label else table.title, **label)
    for axes in panels:
        axes.margins(x=0.15)
        axes.locator_params(axis="x", nbins=5)


@drawing
def over_tokens(results: dict, rows: dict[str, str]) -> Drawing:
    """Held-out loss over the tokens read, each line the mean of a row's runs.

    rows   name in the figure -> name of the row in `results`
    Errors: ValueError for no row, too many, one that was not trained or that diverged.
    """
    need_few("rows", rows)
    useless = [row for row in rows.values() if results["rows"].get(row, {}).get("mean") is None]
    if useless:
        raise ValueError(f"rows {useless} have no loss in the results, expected trained ones")
    figure = new_figure(height=3.8)
    axes = figure.subplots()
    curves = {name: _mean_curve(results["rows"][row]["runs"]) for name, row in rows.items()}
    for (name, (tokens, losses)), line in zip(curves.items(), LINES, strict=False):
        axes.plot([count / 1e6 for count in tokens], losses, label=name, **line)
    axes.set(xlabel="tokens read (millions)", ylabel="held-out loss (nats per token)")
    axes.legend()
    ahead = [min(curves, key=lambda name: curves[name][1][look]) for look in (0, -1)]
    tokens = next(iter(curves.values()))[0]
    return figure, (
        f"After {tokens[0] / 1e6:.0f} million tokens {ahead[0]} has the lowest loss, "
        f"after {tokens[-1] / 1e6:.0f} million {ahead[1]}."
    )


def _mean_curve(runs: list[dict]) -> tuple[list[int], list[float]]:
    """Tokens read, and the mean over runs of the loss there."""
    looks = zip(*(run["curve"] for run in runs), strict=True)
    tokens, losses = zip(
        *((look[0][0], fmean(loss for _, loss in look)) for look in looks), strict=True
    )
    return list(tokens), list(losses)


def _draw_row(axes: Axes, place: int, row: dict) -> None:
    seeds = [run["loss"] for run in row["runs"] if run["loss"] is not None]
    axes.plot(seeds, [place + 0.25] * len(seeds), "D", color=BLUE, markersize=4)
    if row["mean"] is None:
        where = dict(transform=axes.get_yaxis_transform(), ha="right", va="center")
        axes.text(0.98, place, "diverged", **where)
        return
    axes.errorbar(row["mean"], place, xerr=row["spread"], fmt="o", color=ORANGE, capsize=4)


def _sentence(tables: Sequence[Table], results: dict) -> str:
    rows = results["rows"]
    counts = {
        len(rows[row]["runs"]) for table in tables for row in table.rows.values() if row in rows
    }
    seeds = " to ".join(str(count) for count in sorted({min(counts), max(counts)}))
    return (
        f"{' '.join(said(table, results) for table in tables)} < means a lower loss, ≈ no "
        f"difference. Diamonds: {seeds} seeds; bars: their mean and spread, "
        f"{pooled_spread(rows.values()):.2g} nats per token in all."
    )


def said(table: Table, results: dict) -> str:
    """What can be said of the order of this table's rows, pair by pair."""
    kinds = verdicts(results, table).items()
    found = [f"{SAID[kind]}: {', '.join(pairs)}" for kind, pairs in kinds if pairs]
    return f"{table.title}. {'. '.join(found)}."
