"""LRPE: linearised relative position encoding (arXiv 2307.14995).

    theta     angle per token of each feature       (h, 1, d)
    LRPE(x)_t = [x cos(theta t), x sin(theta t)]    (b, h, n, d) -> (b, h, n, 2 d)

Since cos a cos b + sin a sin b = cos(a - b), the score of a query at t and a key at s is

    LRPE(q)_t . LRPE(k)_s = sum_j q_j k_j cos(theta_j (t - s)):

only the distance t - s is left, though each side was encoded alone.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from transnormer_edu import check


def frequency_ladder(heads: int, head_dim: int) -> Float[Tensor, "h 1 d"]:
    """theta_j = 10000^(-2 j / (h d)), j = 0 .. h d - 1: one ladder shared out over all heads.

    It falls from 1 in the first feature of the first head to about 1e-8 in the last of the last.
    """
    features = check.whole("heads", heads) * check.whole("head_dim", head_dim)
    j = torch.arange(features, dtype=torch.float64, device="cpu")  # as in `shapes_alone`
    ladder = 10000 ** (-2 * j / features)
    ladder = ladder.to(torch.get_default_device(), torch.get_default_dtype())
    return ladder.reshape(heads, 1, head_dim)


def lrpe(
    x: Float[Tensor, "b h n d"],
    theta: Float[Tensor, "h 1 d"],
    position: Int[Tensor, "n"] | Int[Tensor, "b n"],
) -> Float[Tensor, "b h n 2*d"]:
    """[x cos(theta t), x sin(theta t)] at the positions t, which may start anywhere.

    Angles are float32, or wider where x is, whatever the type of x: bfloat16 cannot tell
    position 257 from 256.
    """
    check.floating(x=x, theta=theta)
    check.tensors(position=position)
    fits = x.ndim == 4 and tuple(theta.shape) == (x.shape[1], 1, x.shape[3])
    if not fits or tuple(position.shape) not in {(x.shape[2],), (x.shape[0], x.shape[2])}:
        raise ValueError(
            f"got x {tuple(x.shape)}, theta {tuple(theta.shape)}, position "
            f"{tuple(position.shape)}; expected (b, h, n, d), (h, 1, d), (n,) or (b, n)"
        )
    wide = torch.promote_types(x.dtype, torch.float32)
    angle = theta.to(wide) * position[..., None, :, None].to(wide)
    return torch.cat([x * angle.cos(), x * angle.sin()], dim=-1).to(x.dtype)


class LRPE(nn.Module):
    """`lrpe` with a learned theta, initialised to the `frequency_ladder`."""

    def __init__(self, heads: int, head_dim: int):
        super().__init__()
        self.theta = nn.Parameter(frequency_ladder(heads, head_dim))

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        return lrpe(x, self.theta, position)
