"""The activations that configs of the released models name.

Each maps (..., d) to (..., d), element by element; only `exp` looks at the whole last axis.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def exp_below_max(x: Tensor) -> Tensor:
    """exp(x - max(x)) over the last axis, so at most 1; the maximum passes no gradient."""
    return torch.exp(x - x.detach().amax(-1, keepdim=True))


ACTIVATIONS = {
    "silu": F.silu,
    "swish": F.silu,
    "relu": F.relu,
    "gelu": F.gelu,
    "elu": F.elu,
    "sigmoid": torch.sigmoid,
    "exp": exp_below_max,
    "leak": F.leaky_relu,
    "1+elu": lambda x: 1 + F.elu(x),
    "2+elu": lambda x: 2 + F.elu(x),
    "sine": torch.sin,
    "none": lambda x: x,
}
