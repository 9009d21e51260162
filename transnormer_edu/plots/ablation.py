"""The paper's tables beside the same tables at small scale, with the spread between seeds."""

from statistics import fmean

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
def beside_the_paper(table: Table, results: dict) -> Drawing:
    """Losses of one table: the paper's on the left where it has them, those measured here right.

    results   what `ablate` returned or `ablation.measured` reads; diamonds are single seeds, and
              above them their mean with one standard deviation to each side

    The sentence sorts the pairs of rows by `ablation.verdicts`.
    Errors: ValueError where fewer than two of the table's rows were trained.
    """
    names = [name for name, row in table.rows.items() if row in results["rows"]]
    if len(names) < 2:
        raise ValueError(
            f"{len(names)} rows of '{table.title}' were trained, expected at least two"
        )
    figure = new_figure(7.5, 1.5 + 0.36 * len(names))
    panels = figure.subplots(1, 2 if table.paper else 1, sharey=True, squeeze=False)[0]
    if table.paper:
        panels[0].plot([table.paper[name] for name in names], range(len(names)), "o", color=INK)
        panels[0].set(xlabel="loss (as printed)", title="the paper, 385M parameters")
    found = [results["rows"][table.rows[name]] for name in names]
    for place, row in enumerate(found):
        _draw_row(panels[-1], place, row)
    size = found[0]["parameters"] / 1e6
    panels[-1].set(xlabel="loss (nats per token)", title=f"here, {size:.0f}M parameters")
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    panels[0].set_ylabel(table.title)
    for axes in panels:
        axes.margins(x=0.15)
        axes.locator_params(axis="x", nbins=5)
    return figure, _sentence(table, results)


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


def _sentence(table: Table, results: dict) -> str:
    said = [
        f"{SAID[kind]}: {', '.join(pairs)}"
        for kind, pairs in verdicts(results, table).items()
        if pairs
    ]
    counts = {
        len(results["rows"][row]["runs"]) for row in table.rows.values() if row in results["rows"]
    }
    seeds = " to ".join(str(count) for count in sorted({min(counts), max(counts)}))
    spread = pooled_spread(results["rows"].values())
    return (
        f"{table.title} (< means a lower loss, ≈ no difference). {'. '.join(said)}. "
        f"Diamonds: {seeds} seeds; bars: their mean and spread, {spread:.2g} nats per token in all."
    )
