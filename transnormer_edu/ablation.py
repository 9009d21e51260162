"""The paper's ablations: which models are compared, in which table, and what the paper found.

Every row of every table is one config that differs from the model of the paper in one thing:

    CHOICES["lrpe_d"] = {"lrpe_layers": "all"}             that thing
    TABLES["positions"].rows["LRPE-d"] = "lrpe_d"          where it stands
    model_of("lrpe_d", SIZES)                              the model, not trained

Rows have the same number of parameters to 1 %: where a mixer has fewer (no gate, softmax
attention), the GLU is wider by as many. (arXiv 2307.14995 does not say how its rows were sized.)
"""

from collections.abc import Iterator
from dataclasses import dataclass

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
    """The tables as lines of text: loss in nats per token, mean ± standard deviation over seeds."""
    for table in TABLES.values():
        yield f"\n{table.title}"
        for name, row in table.rows.items():
            found = results["rows"].get(row)
            yield f"  {name:16} {_result(found)}"


def _result(found: dict | None) -> str:
    if found is None:
        return "not trained yet"
    seeds = f"{len(found['runs'])} seeds, rate {found['learning_rate']:g}"
    if found["mean"] is None:
        return f"diverged ({seeds})"
    spread = "" if found["spread"] is None else f" ± {found['spread']:.4f}"
    return f"{found['mean']:.4f}{spread} ({seeds})"
