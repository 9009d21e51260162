"""The activations that configs of the released models name.

Each maps (..., d) to (..., d), element by element; only `exp` looks at the whole last axis.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def exp_below_max(x: Tensor) -> Tensor:
    """exp(x - max(x)) over the last axis, so at most 1; the maximum passes no gradient."""
    return torch.exp(x - x.detach().amax(-1, keepdim=True))


def one_plus_elu(x: Tensor) -> Tensor:
    """1 + elu(x): always positive."""
    return 1 + F.elu(x)


def two_plus_elu(x: Tensor) -> Tensor:
    """2 + elu(x): above 1."""
    return 2 + F.elu(x)


def identity(x: Tensor) -> Tensor:
    """x as it is."""
    return x


# Named functions, so that a model can be pickled.
ACTIVATIONS = {
    "silu": F.silu,
    "swish": F.silu,
    "relu": F.relu,
    "gelu": F.gelu,
    "elu": F.elu,
    "sigmoid": torch.sigmoid,
    "exp": exp_below_max,
    "leak": F.leaky_relu,
    "1+elu": one_plus_elu,
    "2+elu": two_plus_elu,
    "sine": torch.sin,
    "none": identity,
}
