"""The paper's ablations: which models are compared, in which table, and what the paper found.

Every row of every table is one config that differs from the model of the paper in one thing:

    CHOICES["lrpe_d"] = {"lrpe_layers": "all"}             that thing
    TABLES["positions"].rows["LRPE-d"] = "lrpe_d"          where it stands
    model_of("lrpe_d", SIZES)                              the model, not trained

Rows have the same number of parameters to 1 %: where a mixer has fewer (no gate, softmax
attention), the GLU is wider by as many. (arXiv 2307.14995 does not say how its rows were sized.)
"""

import itertools
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from transnormer_edu import check
from transnormer_edu.config import TransNormerConfig
from transnormer_edu.model import LanguageModel, TransNormerLLM
from transnormer_edu.transformer import Transformer, TransformerConfig


@dataclass(frozen=True)
class Sizes:
    """Sizes that all rows share; glu_dim is that of a model with a full gate."""

    vocab_size: int = 4096
    dim: int = 256
    layers: int = 8
    heads: int = 4
    glu_dim: int = 896


@dataclass(frozen=True)
class Table:
    """One table of the paper at 385M parameters, or one that it does not have.

    title   what is compared
    rows    name in the table -> name in `CHOICES`
    paper   name in the table -> loss after 100 thousand updates, where the paper has the table
    """

    title: str
    rows: dict[str, str]
    paper: dict[str, float]


# What each row changes of the paper's model, which is "base": LRPE-d in the first layer alone.
CHOICES = {
    "base": {},
    "transformer": {"kind": "softmax"},
    "absolute": {"absolute_position": True, "lrpe_layers": "none", "decay": "none"},
    "exp_decay": {"lrpe_layers": "none"},
    "lrpe": {"lrpe_layers": "all", "decay": "none"},
    "lrpe_d": {"lrpe_layers": "all"},
    "no_temperature": {"decay": "flat"},
    "no_gate": {"gate": "none"},
    "no_activation": {"activation": "none"},
    "one_plus_elu": {"activation": "1+elu"},
    "glu_swish": {"glu_activation": "silu"},
    "rmsnorm": {"norm": "rmsnorm"},
    "layernorm": {"norm": "layernorm"},
    "paper_decay": {"decay": "paper"},
}

TABLES = {
    "architecture": Table(
        "Softmax or linear attention",
        {"Transformer": "transformer", "TransNormerLLM": "base"},
        {"Transformer": 2.362, "TransNormerLLM": 2.248},
    ),
    "positions": Table(
        "Positions",
        {"Mix": "base", "APE": "absolute", "Exp-Decay": "exp_decay", "LRPE": "lrpe",
         "LRPE-d": "lrpe_d"},
        {"Mix": 2.248, "APE": 2.387, "Exp-Decay": 2.267, "LRPE": 2.287, "LRPE-d": 2.236},
    ),
    "temperature": Table(
        "Decay temperature",
        {"with": "base", "without": "no_temperature"},
        {"with": 2.248, "without": 2.258},
    ),
    "gate": Table(
        "Gate",
        {"with": "base", "without": "no_gate"},
        {"with": 2.248, "without": 2.263},
    ),
    "activation": Table(
        "Activation of q and k",
        {"Swish": "base", "none": "no_activation", "1+elu": "one_plus_elu"},
        {"Swish": 2.248, "none": 2.283, "1+elu": 2.252},
    ),
    "glu": Table(
        "Activation in the GLU",
        {"none": "base", "Swish": "glu_swish"},
        {"none": 2.248, "Swish": 2.254},
    ),
    "norm": Table(
        "Norm",
        {"SRMS": "base", "RMS": "rmsnorm", "Layer": "layernorm"},
        {"SRMS": 2.248, "RMS": 2.247, "Layer": 2.247},
    ),
    "schedule": Table(
        "Decay schedule",
        {"released": "base", "as printed": "paper_decay"},
        {},
    ),
}  # fmt: skip


def model_of(row: str, sizes: Sizes) -> LanguageModel:
    """An untrained model of this row, initialised from torch's generator.

    Errors: ValueError for an unknown row.
    """
    check.one_of("row", row, CHOICES)
    changes = dict(CHOICES[row])
    shared = {"vocab_size": sizes.vocab_size, "layers": sizes.layers, "heads": sizes.heads}
    if changes.pop("kind", None) == "softmax":
        glu_dim = wider_glu(sizes)
        return Transformer(TransformerConfig(dim=sizes.dim, glu_dim=glu_dim, **shared))
    where = {"all": tuple(range(sizes.layers)), "none": ()}
    if "lrpe_layers" in changes:
        changes["lrpe_layers"] = where[changes["lrpe_layers"]]
    glu_dim = wider_glu(sizes) if changes.get("gate") == "none" else sizes.glu_dim
    return TransNormerLLM(TransNormerConfig(dim=sizes.dim, glu_dim=glu_dim, **shared, **changes))


def wider_glu(sizes: Sizes) -> int:
    """The GLU width g' that pays for a missing gate: 3 d g' = 3 d g + d^2, to a multiple of 8."""
    return round((sizes.glu_dim + sizes.dim / 3) / 8) * 8


def report(results: dict) -> Iterator[str]:
    """The tables as lines of text: the paper's loss as printed, and ours in nats per token.

    Ours is the mean over seeds ± the standard deviation between them.
    """
    for table in TABLES.values():
        yield f"\n{table.title:28}{'paper' if table.paper else '':7}here"
        for name, row in table.rows.items():
            paper = f"{table.paper[name]:.3f}" if table.paper else ""
            yield f"  {name:26}{paper:7}{_result(results['rows'].get(row))}"


def _result(found: dict | None) -> str:
    if found is None:
        return "not trained yet"
    seeds = f"{len(found['runs'])} seeds, rate {found['learning_rate']:g}"
    if found["mean"] is None:
        return f"diverged ({seeds})"
    spread = "" if found["spread"] is None else f" ± {found['spread']:.4f}"
    return f"{found['mean']:.4f}{spread} ({seeds})"


# ---------------------------------------------------------------- what the results say

SURE = 2  # standard errors: a difference beyond so many is called one
ALIKE = 0.0015  # the paper prints three digits and no spread: closer figures are called alike


def measured(path: str | Path | None = None) -> dict:
    """The results that come with the package, or those of a file that `ablate` wrote.

    Errors: FileNotFoundError where there are none.
    """
    path = Path(path) if path is not None else Path(__file__).parent / "results" / "ablation.json"
    if not path.is_file():
        raise FileNotFoundError(f"no results in {path}: make your own, transnormer-edu ablate")
    return json.loads(path.read_text(encoding="utf-8"))


def order(results: dict, a: str, b: str) -> int:
    """-1 if row a's loss is lower than b's, 1 if it is higher, 0 where the spread is too wide.

    It is lower or higher if |m_a - m_b| > SURE * s * sqrt(1/n_a + 1/n_b), with the means m over n
    seeds. s is the standard deviation between seeds, pooled over all rows (a single row has too
    few seeds to know its own), or over these two where that is larger. A row that diverged is
    higher than one that did not.
    """
    rows = results["rows"]
    first, second = (math.inf if rows[row]["mean"] is None else rows[row]["mean"] for row in (a, b))
    if first == second:
        return 0
    if math.isfinite(first) and math.isfinite(second):
        spreads = [pooled_spread(rows.values()), pooled_spread([rows[a], rows[b]])]
        spread = max(filter(math.isfinite, spreads), default=math.inf)
        error = spread * math.sqrt(sum(1 / len(rows[row]["runs"]) for row in (a, b)))
        if abs(first - second) <= SURE * error:
            return 0
    return -1 if first < second else 1


def pooled_spread(rows: Iterable[dict]) -> float:
    """s = sqrt( sum (n-1) s_row^2 / sum (n-1) ): the standard deviation that rows have in common.

    Rows that diverged or have a single seed say nothing; infinite where no other is left.
    """
    known = [(len(row["runs"]) - 1, row["spread"]) for row in rows if row["spread"] is not None]
    freedom = sum(n for n, _ in known)
    return math.sqrt(sum(n * s * s for n, s in known) / freedom) if freedom else math.inf


def verdicts(results: dict, table: Table) -> dict[str, list[str]]:
    """Every pair of rows under what the paper and the runs here say of its order.

    "agrees"    one is lower, in the paper and here; or alike in the paper and not told apart here
    "differs"   the other one is lower here; or alike in the paper and told apart here
    "unclear"   one is lower in the paper, and here the spread is too wide to tell
    "new"       the paper has no figures: what is told apart here

    A pair is written with the lower one first, as it is here or, where unclear, in the paper.
    """
    found = {"agrees": [], "differs": [], "unclear": [], "new": []}
    there = [name for name, row in table.rows.items() if row in results["rows"]]
    for first, second in itertools.combinations(there, 2):
        here = order(results, table.rows[first], table.rows[second])
        gap = table.paper[first] - table.paper[second] if table.paper else 0.0
        paper = 0 if abs(gap) < ALIKE else (1 if gap > 0 else -1)
        sign = here or paper
        pair = f"{second} < {first}" if sign > 0 else f"{first} {'<' if sign else '≈'} {second}"
        if not table.paper:
            kind = "new" if here else "unclear"
        else:
            kind = "agrees" if here == paper else "differs" if here else "unclear"
        found[kind].append(pair)
    return found
