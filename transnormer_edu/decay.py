"""Decay: how fast each head of each layer forgets.

A head with rate r keeps lambda^a = exp(-r a) of a token that is a tokens old.

    rate       r >= 0, natural log per token     (h,) or (b, h)
    half-life  ln 2 / r tokens                   after which half is left
    window     1 / r tokens                      after which 1/e is left

Schedules give the rates. None is learned: in the paper learning them ended in NaN.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from transnormer_edu import check

Rates = Float[Tensor, "h"]


def released_rates(
    heads: int, layer: int, layers: int, dtype: torch.dtype = torch.float32
) -> Rates:
    """Rates of the released models, for head i = 0 .. H-1 of layer l = 0 .. L-1.

        r = 2^(-8 (i+1) / H) * (1 - l / (L-1) + 1e-5)          H a power of two

    For another H: the slopes of P heads, P the largest power of two up to H, then every second
    slope of 2P heads until there are H (the slopes of ALiBi, arXiv 2108.12409). A model of one
    layer, which divides by zero in the original code, uses the factor of a first layer.
    """
    dtype = _check(heads, layer, layers, dtype)
    depth = 1 - layer / max(layers - 1, 1) + 1e-5
    return torch.tensor([slope * depth for slope in _released_slopes(heads)], dtype=dtype)


def paper_rates(heads: int, layer: int, layers: int, dtype: torch.dtype = torch.float32) -> Rates:
    """Rates as the paper prints them (arXiv 2307.14995), for h = 1 .. H, l = 0 .. L-1.

    lambda = exp(-(8 h / H) (1 - l / L))                   so r = (8 h / H) (1 - l / L)
    """
    dtype = _check(heads, layer, layers, dtype)
    depth = 1 - layer / layers
    return torch.tensor([8 * h / heads * depth for h in range(1, heads + 1)], dtype=dtype)


def flat_rates(heads: int, layer: int, layers: int, dtype: torch.dtype = torch.float32) -> Rates:
    """The released slopes without the paper's decay temperature: alike in every layer.

    r = 2^(-8 (i+1) / H)                                   H a power of two
    """
    dtype = _check(heads, layer, layers, dtype)
    return torch.tensor(_released_slopes(heads), dtype=dtype)


def no_rates(heads: int, layer: int, layers: int, dtype: torch.dtype = torch.float32) -> Rates:
    """Rate 0 for every head: nothing is forgotten, plain linear attention."""
    dtype = _check(heads, layer, layers, dtype)
    return torch.zeros(heads, dtype=dtype)


SCHEDULES = {
    "released": released_rates,
    "paper": paper_rates,
    "flat": flat_rates,
    "none": no_rates,
}


def half_life(rate: Tensor) -> Tensor:
    """ln 2 / r: tokens after which half of a token is left; infinite at rate 0."""
    check_rates(rate)
    return math.log(2) / rate


def window(rate: Tensor) -> Tensor:
    """1 / r: tokens after which 1/e of a token is left; infinite at rate 0."""
    check_rates(rate)
    return 1 / rate


def decay_mask(
    rate: Float[Tensor, "h"] | Float[Tensor, "b h"], n: int
) -> Float[Tensor, "h n n"] | Float[Tensor, "b h n n"]:
    """M_ts = exp(-r (t - s)) for s <= t, else 0.

    The future is cut by t - s, not by the value of r (t - s): at rate 0 that would let it in.
    """
    check_rates(rate)
    check.whole("n", n, least=0)
    position = torch.arange(n, device=rate.device)
    age = position[:, None] - position  # whole numbers: bfloat16 cannot count beyond 256
    rate = rate.to(torch.promote_types(rate.dtype, torch.float32))
    weight = torch.exp(-rate[..., None, None] * age.clamp(min=0))
    return weight.masked_fill(age < 0, 0)


def check_rates(rate: Tensor) -> None:
    """TypeError or ValueError, in one sentence, unless rates are numbers of at least 0."""
    check.floating(rate=rate)
    # Reading values makes the host wait for a GPU, and cannot be traced: only on the CPU.
    readable = rate.device.type == "cpu" and not torch.compiler.is_compiling()
    if readable and not bool(((rate >= 0) & rate.isfinite()).all()):  # NaN fails this too
        raise ValueError(f"got rates {rate.tolist()}; expected none negative, NaN or infinite")


def _released_slopes(heads: int) -> list[float]:
    power = 1 << (int(heads).bit_length() - 1)
    return _slopes(power) + _slopes(2 * power)[::2][: heads - power]


def _slopes(heads: int) -> list[float]:
    return [2 ** (-8 * (i + 1) / heads) for i in range(heads)]


def _check(heads: int, layer: int, layers: int, dtype) -> torch.dtype:
    check.whole("heads", heads)
    check.whole("layers", layers)
    if not check.is_whole(layer, below=layers):
        raise ValueError(f"layer is {layer!r} of {layers} layers, expected 0 to {layers - 1}")
    return check.float_type("dtype", dtype)
