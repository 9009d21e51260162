"""What is measured of an attention map: where its mass lies, and how far back it reaches.

    weights     A_ts, what token s counts for the output at t; 0 for s > t          (..., n, n)
    mass        p_ts = |A_ts| / sum_s |A_ts|: shares of a row, they sum to 1
    age         t - s, how many tokens ago

Linear attention's weights may be negative: such a token moves the output too, the other way. So
mass is of absolute values; for softmax it is the map itself. Dividing by the row's sum is fair to
linear attention, since the norm after it takes the size of its output away. Dilution, local mass:
TransNormer, arXiv 2210.10340.
"""

import csv
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from transnormer_edu.atomic import write_text
from transnormer_edu.attention import linear_weights, softmax_weights
from transnormer_edu.model import LanguageModel
from transnormer_edu.transformer import SoftmaxAttention

Map = Float[Tensor, "*batch n n"]


def attention_mass(weights: Map) -> Map:
    """p_ts = |A_ts| / sum_s |A_ts|. A row of zeros has no shares: NaN.

    Errors: ValueError for a map that is not square, or that looks into the future.
    """
    if weights.ndim < 2 or weights.shape[-1] != weights.shape[-2]:
        raise ValueError(f"got a map {tuple(weights.shape)}; expected (..., n, n)")
    if weights.triu(1).any():
        raise ValueError("the map looks into the future; expected 0 wherever s > t")
    size = weights.abs()
    return size / size.sum(-1, keepdim=True)


def mass_by_age(weights: Map) -> Map:
    """The same shares, nearest first: column a of row t holds p_t,t-a, and 0 for a > t."""
    position = torch.arange(weights.shape[-1], device=weights.device)
    column = (position[:, None] - position).remainder(len(position))
    mass = attention_mass(weights)
    return mass.gather(-1, column.expand_as(mass))


def local_mass(weights: Map, shares: Float[Tensor, "m"]) -> Float[Tensor, "*batch m"]:
    """Mass in the nearest share rho of the tokens that a row can see, averaged over the rows.

    Row t sees t + 1 tokens, so its neighbourhood is the rho (t + 1) nearest; where that is no
    whole number, the last one counts for the fraction. A map that is flat thus has the local
    mass rho, at every rho: above it attention is local, and only there. Rows of zeros are left
    out. Errors: ValueError for shares outside 0 to 1, and as `attention_mass`.
    """
    if not bool(((shares >= 0) & (shares <= 1)).all()):
        raise ValueError(f"got shares {shares.tolist()}; expected each from 0 to 1")
    within = _mass_within(weights)
    n = weights.shape[-1]
    size = shares.to(within) * torch.arange(1, n + 1).to(within)[:, None]  # tokens, (n, m)
    whole = size.floor().long().expand(*within.shape[:-1], -1)
    below, above = within.gather(-1, whole), within.gather(-1, (whole + 1).clamp(max=n))
    return (below + (size - whole) * (above - below)).nanmean(-2)


def effective_window(weights: Map) -> Float[Tensor, "*batch n"]:
    """Nearest tokens that hold 1 - 1/e = 63 % of a row's mass, for each row.

    If all scores are equal and only decay tells tokens apart, that is `decay.window` = 1/r, once
    the row is much longer. A fraction of a token is counted as in `local_mass`.
    """
    within = _mass_within(weights)
    goal = 1 - 1 / math.e
    reached = (within < goal).sum(-1, keepdim=True).clamp(max=weights.shape[-1])
    above, below = within.gather(-1, reached), within.gather(-1, reached - 1)
    return (reached - 1 + (goal - below) / (above - below)).squeeze(-1)


def _mass_within(weights: Map) -> Tensor:
    """(..., n, n+1): the mass of the 0, 1, ..., n nearest tokens."""
    nearest = mass_by_age(weights).cumsum(-1)
    return torch.nn.functional.pad(nearest, (1, 0))


@torch.no_grad()
def attention_maps(model: LanguageModel, ids: Int[Tensor, "b n"]) -> list[Float[Tensor, "b h n n"]]:
    """The map of every layer while the model reads `ids`: o = A v, for each head.

    softmax    A = `softmax_weights` of q, k (rotated, where the model rotates)
    linear     A_ts = lambda^(t-s) q_t k_s with signs, q, k after activation and LRPE; o before
               the norm and the gate
    """
    maps = []

    def keep(mixer, given):
        maps.append(mixer_map(mixer, *given[:2]))

    hooks = [layer.token_mixer.register_forward_pre_hook(keep) for layer in model.model["layers"]]
    try:
        model(ids)
    finally:
        for hook in hooks:
            hook.remove()
    return maps


def mixer_map(
    mixer: torch.nn.Module, x: Float[Tensor, "b n d"], position: Int[Tensor, "n"]
) -> Float[Tensor, "b h n n"]:
    """The map of one token mixer, GLA or SoftmaxAttention, for its normalised input x."""
    q, k, *_ = mixer.project(x, position)
    if isinstance(mixer, SoftmaxAttention):
        return softmax_weights(q, k)
    return linear_weights(q, k, mixer.rate)


def save_map(
    folder: str | Path, name: str, weights: Float[Tensor, "n n"], tokens: Sequence[str]
) -> tuple[Path, Path]:
    """Write one map as NAME_map.csv and its local mass as NAME_local_mass.csv; gives both paths.

    map          a line for each pair s <= t, numbered from 1: the tokens, age t - s, A_ts and p_ts
    local mass   a line for each share of the tokens, 0 to 1 in steps of 0.05

    Errors: ValueError for names that do not fit the map, or that would leave the folder.
    """
    if len(tokens) != len(weights):
        raise ValueError(f"got {len(tokens)} tokens for a map of {len(weights)}, expected as many")
    if Path(name).name != name:
        raise ValueError(f"got the name {name!r}, expected one without folders")
    mass, shares = attention_mass(weights), torch.linspace(0, 1, 21)
    pairs = [
        (t + 1, tokens[t], s + 1, tokens[s], t - s, f"{weights[t, s]:.6g}", f"{mass[t, s]:.6g}")
        for t in range(len(tokens))
        for s in range(t + 1)
    ]
    curve = zip(shares.tolist(), local_mass(weights, shares).tolist(), strict=True)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    header = ("t", "token t", "s", "token s", "age (tokens)", "weight", "mass")
    return (
        _save(folder / f"{name}_map.csv", header, pairs),
        _save(
            folder / f"{name}_local_mass.csv",
            ("share of tokens", "local mass"),
            [(f"{share:.2f}", f"{inside:.6g}") for share, inside in curve],
        ),
    )


def _save(path: Path, header: Sequence[str], rows: Sequence[Sequence]) -> Path:
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows([header, *rows])
    write_text(path, lines.getvalue())
    return path


def score_gradient(
    read: Callable[[Tensor, Tensor], Tensor],
    score: Float[Tensor, "*batch n n"],
    v: Float[Tensor, "*batch n dv"],
    towards: Float[Tensor, "*batch n dv"],
) -> Float[Tensor, "pairs"]:
    """dL/dz_ts for all s <= t, as one list, where L = sum(read(z, v) * towards) and z = `score`.

    read      makes outputs (..., n, dv) of scores and values; it has to mask the future
    towards   what the layers above ask for: the gradient of L by the output
    """
    score = score.detach().requires_grad_()
    (gradient,) = torch.autograd.grad((read(score, v) * towards).sum(), score)
    past = torch.ones(score.shape[-2:], dtype=torch.bool, device=score.device).tril()
    return gradient[..., past].flatten()


def gradient_spread(gradient: Float[Tensor, "pairs"]) -> float:
    """std(|g|) / mean(|g|): about 1 for gradients of one kind, large where a few carry it all."""
    return (gradient.abs().std() / gradient.abs().mean()).item()
