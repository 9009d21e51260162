"""What the file of rows says: the curves that a figure draws, and the ratios that answer questions.

curve(results, "train", "twin", "tokens_per_s")    context -> value
times_the_twin(results, "train")                   context -> ours over the twin's
"""

import json
from pathlib import Path

from transnormer_edu import check

FOLDER = Path(__file__).parents[1] / "results"
NAMES = {"ours": "TransNormerLLM", "twin": "softmax twin", "llama": "transformers' LLaMA"}


def measured(machine: str) -> dict:
    """The rows that come with the package: of an "h100", an "h200", or a laptop-like "cpu".

    Errors: ValueError for another machine; FileNotFoundError where it was not measured yet.
    """
    check.one_of("machine", machine, ("h100", "h200", "cpu"))
    path = FOLDER / f"speed_{machine}.json"
    if not path.is_file():
        raise FileNotFoundError(f"no {path}: measure it, transnormer-edu bench train --out FILE")
    return json.loads(path.read_text(encoding="utf-8"))


def rows(results: dict, what: str, model: str, key: str) -> dict[int, dict]:
    """context -> the row with the most tokens per second there (the batch that is fastest).

    Memory only of updates in one pass: what a part of one keeps is no measure beside it.
    """
    found = {}
    for row in results["rows"]:
        if key == "activation_bytes" and row.get("parts", 1) > 1:
            continue
        if (row["what"], row["model"]) == (what, model) and row.get(key) is not None:
            before = found.get(row["context"])
            if before is None or row["tokens_per_s"] > before["tokens_per_s"]:
                found[row["context"]] = row
    return dict(sorted(found.items()))


def curve(
    results: dict, what: str, model: str, key: str, batch: int | None = None
) -> dict[int, float]:
    """context -> value, at each the fastest batch, or the given one."""
    if batch is not None:
        kept = [row for row in results["rows"] if row.get("batch") == batch]
        results = results | {"rows": kept}
    return {context: row[key] for context, row in rows(results, what, model, key).items()}


def curves(
    results: dict, what: str, key: str, scale: float = 1, batch: int | None = None
) -> dict[str, dict[int, float]]:
    """Name of a model -> context -> value times `scale`, for the models that were measured."""
    found = {
        said: {n: scale * value for n, value in curve(results, what, name, key, batch).items()}
        for name, said in NAMES.items()
    }
    return {name: values for name, values in found.items() if values}


def where(results: dict) -> str:
    """Machine, size, day and versions, for the head of a figure."""
    origin = results["origin"]
    threads = f", {origin['threads']} threads" if origin["threads"] else ""
    return (
        f"{origin['device']}{threads}, {results['size']} parameters; {origin['date']}, torch "
        f"{origin['torch']}"
    )


def times_the_twin(
    results: dict, what: str, batch: int | None = None, key: str = "tokens_per_s"
) -> dict[int, float]:
    """context -> ours over the twin's."""
    ours, twin = (curve(results, what, name, key, batch) for name in ("ours", "twin"))
    return {context: ours[context] / twin[context] for context in ours if context in twin}


def table(results: dict) -> list[str]:
    """The rows as lines of text: what, model, context, batch, tokens/s, and what else is known."""
    lines = [f"{'':8}{'':22}{'context':>10}{'batch':>7}{'tokens/s':>12}{'MFU':>7}{'ms':>11}"]
    for row in results["rows"]:
        if "ms" in row:
            share = f"{row['of_matmul_rate']:7.3f}" if "of_matmul_rate" in row else f"{'':7}"
            lines.append(
                f"{row['what']:8}{NAMES[row['model']]:22}{row['context']:>10,}{row['batch']:>7}"
                f"{row['tokens_per_s']:>12,.0f}{share}{row['ms']:>11.3f}"
            )
    return lines
