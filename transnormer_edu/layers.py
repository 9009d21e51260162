"""The layers of TransNormerLLM: GLA mixes tokens, SGLU mixes channels, a block is both.

    x = x + GLA(norm(x))          x: (b, n, d)
    x = x + SGLU(norm(x))         (in TransNormerLLM2 side by side: see `Block`)

(arXiv 2307.14995.) No dropout, no bias. Parameter names are those of the
released models, so that their weights load as they are.
"""

from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from transnormer_edu import check
from transnormer_edu.activation import ACTIVATIONS
from transnormer_edu.attention import check_operands
from transnormer_edu.config import TransNormerConfig
from transnormer_edu.decay import SCHEDULES
from transnormer_edu.lightning import decode_step, lightning_attention, norm_gate
from transnormer_edu.lrpe import LRPE
from transnormer_edu.norm import NORMS, SRMSNorm

Hidden = Float[Tensor, "b n d"]
Joined = Float[Tensor, "b n hidden"]
Position = Int[Tensor, "n"] | Int[Tensor, "b n"]
Real = Bool[Tensor, "b n"]
LayerState = Float[Tensor, "b h dk dv"]


class GatedNorm(SRMSNorm):
    """u * srmsnorm(x): the norm and the gate of GLA, on a GPU in one kernel."""

    def forward(self, x: Joined, u: Joined) -> Joined:
        return norm_gate(x, u, self.eps)


class GLA(nn.Module):
    """Gated linear attention, the token mixer.

        q, k, v, u = split(x W_qkvu);  q, k = act(q), act(k);  q, k = LRPE(q), LRPE(k)
        o_t = sum_{s<=t} exp(-r (t-s)) (q_t k_s) v_s           per head, `lightning_attention`
        y = (u * norm(o)) W_out                                the norm spans all heads at once

    LRPE only in the layers that use it; there dk = 2 dv. v and u get no activation. A gate of
    rank 16 makes u by two thin projections; without a gate u is 1.
    """

    def __init__(self, config: TransNormerConfig, layer: int):
        super().__init__()
        check.kind("config", config, TransNormerConfig)
        hidden = config.hidden_dim
        self.heads, self.gate = config.heads, config.gate
        self.activation = ACTIVATIONS[config.activation]
        # A full gate shares the projection of q, k, v, as in the released models.
        shares = 4 if self.gate == "full" else 3
        self.qkvu_proj = nn.Linear(config.dim, shares * hidden, bias=False)
        if self.gate not in ("full", "none"):
            self.u_proj = nn.Sequential(
                nn.Linear(config.dim, self.gate, bias=False),
                nn.Linear(self.gate, hidden, bias=False),
            )
        self.lrpe = None
        if layer in config.lrpe_layers:
            self.lrpe = LRPE(config.heads, config.head_dim)
        gated = self.gate != "none" and config.norm == "simplermsnorm"
        self.norm = GatedNorm(hidden) if gated else NORMS[config.norm](hidden)
        self.out_proj = nn.Linear(hidden, config.dim, bias=False)
        self.make_rate = partial(SCHEDULES[config.decay], config.heads, layer, config.layers)
        wide = torch.promote_types(torch.get_default_dtype(), torch.float32)
        self.register_buffer("rate", self._exact_rate(wide), persistent=False)

    def _apply(self, fn, recurse=True):
        """Move the rates with the module, but never round them: float32, float64 in float64."""
        rate = self.rate
        super()._apply(fn, recurse)
        device = torch.device("cpu") if self.rate.is_meta else self.rate.device
        wide = torch.promote_types(self.rate.dtype, torch.float32)
        if wide != rate.dtype:
            rate = self._exact_rate(wide)
        self.rate = rate.to(device)
        return self

    def _exact_rate(self, dtype):
        """From the config, not from a file: so on the CPU, even under torch.device("meta")."""
        with torch.device("cpu"):
            return self.make_rate(dtype=dtype)

    def forward(
        self,
        x: Hidden,
        position: Position,
        real: Real | None = None,
        state: LayerState | None = None,
        return_state: bool = False,
    ) -> tuple[Hidden, LayerState | None]:
        """The mixed tokens, and the state after them (None unless `return_state`).

        position   where each token stands in its text, for LRPE
        real       False at padding, which must stand on the left; None: no padding
        """
        q, k, v, u = self.project(x, position, real)
        o, state = self._attend(q, k, v, real, state, return_state)
        return self.finish(rearrange(o, "b h n e -> b n (h e)"), u), state

    def finish(self, o: Joined, u: Joined | None) -> Hidden:
        """(u * norm(o)) W_out, for o with its heads joined."""
        if isinstance(self.norm, GatedNorm):
            return self.out_proj(self.norm(o, u))
        o = self.norm(o)
        return self.out_proj(o if u is None else u * o)

    def project(self, x: Hidden, position: Position, real: Real | None = None) -> tuple:
        """What `lightning_attention` is given: q, k after activation and LRPE, v; and the gate u.

        q, k: (b, h, n, dk), v: (b, h, n, dv), u: (b, n, hidden) or None without a gate.
        """
        hidden = self.out_proj.in_features
        parts = self.qkvu_proj(x).split(hidden, dim=-1)
        q, k, v = (rearrange(part, "b n (h e) -> b h n e", h=self.heads) for part in parts[:3])
        if self.gate == "full":
            u = parts[3]
        elif self.gate == "none":
            u = None
        else:
            u = self.u_proj(x)
        if real is not None:
            v = v * real[:, None, :, None]  # a padded token leaves nothing in the state
        q, k = self.activation(q), self.activation(k)
        if self.lrpe is not None:
            q, k = self.lrpe(q, position), self.lrpe(k, position)
        return q, k, v, u

    def _attend(self, q, k, v, real, state, return_state):
        rate = self.rate.to(q.device)  # moves only where a meta model is tried out
        if real is None or state is None:
            out = lightning_attention(q, k, v, rate, state=state, return_state=return_state)
            return out if return_state else (out, None)
        # Padding on the left would age the state S that comes in. Attention is linear in S, so its
        # share is added apart, aged by the a_t real tokens up to t alone:
        #     o_t += lambda^a_t q_t S,    S_n += lambda^a_n S
        check_operands(q, k, v, rate, state)
        o, new = lightning_attention(q, k, v, rate, return_state=True)
        age = real.cumsum(dim=1).to(state.dtype)
        left = torch.exp(-rate.to(state.dtype)[:, None] * age[:, None])[..., None]
        o = o + ((left * q.to(state.dtype)) @ state).to(o.dtype)
        return o, new + left[:, :, -1:] * state


class SGLU(nn.Module):
    """Simple gated linear unit, the channel mixer: y = (act(x W_1) * x W_2) W_3, act: none."""

    def __init__(self, dim: int, glu_dim: int, activation: str = "none"):
        super().__init__()
        check.whole("dim", dim)
        check.whole("glu_dim", glu_dim)
        check.one_of("activation", activation, ACTIVATIONS)
        self.activation = ACTIVATIONS[activation]
        self.l1 = nn.Linear(dim, glu_dim, bias=False)
        self.l2 = nn.Linear(dim, glu_dim, bias=False)
        self.l3 = nn.Linear(glu_dim, dim, bias=False)

    def forward(self, x: Hidden) -> Hidden:
        a, b = self._both(x)
        return self.l3(self.activation(a) * b)

    def _both(self, x: Hidden) -> tuple[Tensor, Tensor]:
        """x W_1 and x W_2; where training is compiled, as one product: so is its gradient."""
        training = torch.compiler.is_compiling() and torch.is_grad_enabled()
        if training and type(self.l1) is nn.Linear is type(self.l2):
            return F.linear(x, torch.cat([self.l1.weight, self.l2.weight])).chunk(2, dim=-1)
        return self.l1(x), self.l2(x)


class Block(nn.Module):
    """One layer, in one of two orders (`config.block`).

        sequential    x = x + GLA(norm(x)),  then  x = x + SGLU(norm(x))
        parallel      x = x + GLA(norm(x)) + SGLU(norm(x)):  both mixers read the same x

    TransNormerLLM2's README says that the mixers run in parallel; its code was not seen. Assumed is
    that both read the block's input and that their sum is added to it. Whether one norm serves both
    or each has its own cannot be told and makes no difference: SRMSNorm has nothing to learn.
    """

    def __init__(self, config: TransNormerConfig, layer: int):
        super().__init__()
        check.kind("config", config, TransNormerConfig)
        self.parallel = config.block == "parallel"
        self.token_norm = NORMS[config.norm](config.dim)
        self.token_mixer = GLA(config, layer)
        self.channel_norm = NORMS[config.norm](config.dim)
        self.channel_mixer = SGLU(config.dim, config.glu_dim, config.glu_activation)

    def forward(self, x, position, real=None, state=None, return_state=False):
        """As `GLA.forward`: (b, n, d) in, the same and the layer's state out."""
        mixed, state = self.token_mixer(self.token_norm(x), position, real, state, return_state)
        return self._mix_channels(x, mixed), state

    def _mix_channels(self, x, mixed):
        if self.parallel:
            return x + mixed + self.channel_mixer(self.channel_norm(x))
        x = x + mixed
        return x + self.channel_mixer(self.channel_norm(x))

    # One more token, x (b, 1, d), in three parts; between the first and the last the state changes,
    # in place. (`decoder.Decoder` records them; the state is kept apart from what can be compiled.)

    def before(self, x, position):
        """q, k, v, u of the new token, its position (b, 1)."""
        return self.token_mixer.project(self.token_norm(x), position)

    def remember(self, q, k, v, state):
        """o (b, 1, hidden); the state then holds the new token too."""
        o = decode_step(q[:, :, 0], k[:, :, 0], v[:, :, 0], self.token_mixer.rate, state)
        return o.flatten(1)[:, None]

    def after(self, x, o, u):
        """The block's output (b, 1, d)."""
        return self._mix_channels(x, self.token_mixer.finish(o, u))
