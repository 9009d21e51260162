"""The softmax baseline: a LLaMA-like transformer with the interface of TransNormerLLM.

    x = x + attention(norm(x))      P = softmax(Q K^T / sqrt(dh)), all of the past kept and read
    x = x + mlp(norm(x))            SwiGLU (silu gate) or SGLU (no activation)

Reading, padding, loss and saving are `LanguageModel`'s, so every comparison is one line:
only the block differs, and with it the state, which here grows with every token.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from transnormer_edu import check
from transnormer_edu.config import check_sizes
from transnormer_edu.layers import SGLU
from transnormer_edu.model import LanguageModel
from transnormer_edu.norm import NORMS
from transnormer_edu.sinusoid import sinusoid_angles

MLPS = {"swiglu": "silu", "sglu": "none"}
POSITIONS = ("rope", "absolute")


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes and choices of the baseline.

        vocab_size, dim, layers, heads, glu_dim    as in `TransNormerConfig`
        position        "rope": rotate q and k by their position; "absolute": add a sinusoid to x
        mlp             "swiglu": silu(x W_1) * x W_2; "sglu": x W_1 * x W_2
        norm            one of `transnormer_edu.norm.NORMS`

    Raises ValueError, in one sentence, for a choice that cannot work.
    """

    model_type: ClassVar[str] = "softmax_baseline"

    vocab_size: int
    dim: int
    layers: int
    heads: int
    glu_dim: int
    position: str = "rope"
    mlp: str = "swiglu"
    norm: str = "rmsnorm"
    init_std: float = 0.02
    pad_token_id: int = 0
    bos_token_id: int = 1
    eos_token_id: int = 2

    embedding_scale: ClassVar[float] = 1.0

    @property
    def absolute_position(self) -> bool:
        """Whether a sinusoid of its position is added to each embedding."""
        return self.position == "absolute"

    def __post_init__(self):
        check_sizes(self)
        if self.dim % (2 * self.heads):
            raise ValueError(
                f"{self.heads} heads do not divide dim {self.dim} into pairs of features; choose "
                "heads so that dim / heads is even"
            )
        for field, choices in (("position", POSITIONS), ("mlp", MLPS), ("norm", NORMS)):
            check.one_of(field, getattr(self, field), choices)


class KVCache(NamedTuple):
    """All of the past of one layer: keys and values (b, h, m, dh), and which of them are real."""

    k: Float[Tensor, "b h m dh"]
    v: Float[Tensor, "b h m dh"]
    real: Bool[Tensor, "b m"]


def rope(x: Float[Tensor, "b h n dh"], position: Tensor) -> Float[Tensor, "b h n dh"]:
    """Rotate the pair (x_j, x_{j + dh/2}) by its angle (RoFormer, arXiv 2104.09864)."""
    angle = sinusoid_angles(position, x.shape[-1], x.dtype)[..., None, :, :]
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    x1, x2 = x.chunk(2, dim=-1)
    return torch.cat([x1 * cos - x2 * sin, x1 * sin + x2 * cos], dim=-1)


class SoftmaxAttention(nn.Module):
    """Multi-head causal softmax attention; with a cache it reads all keys kept so far."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.heads, self.rotate = config.heads, config.position == "rope"
        self.qkv_proj = nn.Linear(config.dim, 3 * config.dim, bias=False)
        self.out_proj = nn.Linear(config.dim, config.dim, bias=False)

    def forward(self, x, position, real=None, cache=None, return_cache=False):
        """(b, n, d) in, the same and the KVCache out (None unless asked for)."""
        q, k, v = self.project(x, position)
        plain = real is None and cache is None  # the causal triangle is all: the fast path
        if real is None:
            real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        cache = _extend(cache, KVCache(k, v, real))
        mask = None if plain else _visible(cache.real, q.shape[2])
        o = F.scaled_dot_product_attention(q, cache.k, cache.v, attn_mask=mask, is_causal=plain)
        o = self.out_proj(rearrange(o, "b h n e -> b n (h e)"))
        return o, cache if return_cache else None

    def project(self, x, position):
        """q, k, rotated where positions are, and v: (b, h, n, dh) each."""
        q, k, v = rearrange(self.qkv_proj(x), "b n (t h e) -> t b h n e", t=3, h=self.heads)
        if self.rotate:
            q, k = rope(q, position), rope(k, position)
        return q, k, v


class TransformerBlock(nn.Module):
    """x = x + attention(norm(x)), then x = x + mlp(norm(x)): the norms come first (pre-norm)."""

    def __init__(self, config: TransformerConfig, layer: int):
        super().__init__()
        self.token_norm = NORMS[config.norm](config.dim)
        self.token_mixer = SoftmaxAttention(config)
        self.channel_norm = NORMS[config.norm](config.dim)
        self.channel_mixer = SGLU(config.dim, config.glu_dim, MLPS[config.mlp])

    def forward(self, x, position, real=None, cache=None, return_cache=False):
        """As `layers.Block.forward`, with a KVCache for a state."""
        mixed, cache = self.token_mixer(self.token_norm(x), position, real, cache, return_cache)
        x = x + mixed
        return x + self.channel_mixer(self.channel_norm(x)), cache


class Transformer(LanguageModel):
    """The softmax twin of a TransNormerLLM; its state is a KVCache per layer."""

    config_class = TransformerConfig
    state_kind = KVCache

    def __init__(self, config: TransformerConfig):
        super().__init__(config, TransformerBlock)


def _extend(cache: KVCache | None, new: KVCache) -> KVCache:
    if cache is None:
        return new
    before, now = tuple(cache.k.shape), tuple(new.k.shape)
    if before[:2] + before[3:] != now[:2] + now[3:]:
        raise ValueError(
            f"got a cache of keys {before}, new keys {now}; expected one (b, h, ., dh): is it "
            "another model's, or of another batch?"
        )
    return KVCache(
        torch.cat([cache.k, new.k], dim=2),
        torch.cat([cache.v, new.v], dim=2),
        torch.cat([cache.real, new.real], dim=1),
    )


def _visible(real: Bool[Tensor, "b m"], n: int) -> Bool[Tensor, "b 1 n m"]:
    """Row t of the last n tokens sees the real tokens up to itself.

    And always itself: a padded row that saw nothing would be NaN, and NaN spreads.
    """
    m = real.shape[1]
    own = torch.arange(m - n, m, device=real.device)[:, None]
    column = torch.arange(m, device=real.device)
    return ((column <= own) & real[:, None, None, :]) | (column == own)
