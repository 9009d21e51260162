"""The future in a map of tokens by tokens: not a weight of 0, but none at all."""

import math

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from torch import Tensor

from transnormer_edu.plots.style import SHADES


def without_future(weights: Float[Tensor, "n n"]) -> Float[np.ndarray, "n n"]:
    """The map as an array, NaN above its diagonal: no shade is drawn there."""
    future = weights.new_ones(weights.shape).triu(1).bool()
    return weights.detach().masked_fill(future, math.nan).cpu().numpy()


def causal_image(axes: Axes, weights: Float[Tensor, "n n"], **scale) -> AxesImage:
    """The map in shades, its tokens numbered from 1, its future hatched.

    scale   of the shades, as `imshow` takes it: vmin and vmax, or norm
    """
    n = len(weights)
    extent = (0.5, n + 0.5, n + 0.5, 0.5)
    image = axes.imshow(without_future(weights), cmap=SHADES, extent=extent, **scale)
    axes.grid(False)
    axes.patch.set(hatch="///", edgecolor="#CCCCCC")
    return image
