"""Decoding at the speed of reading the weights: the state changes in place, one graph a token.

    decoder = Decoder(model, state)         the state that reading a prompt has left; it is copied
    logits = decoder(token)                 (b,) -> (b, V), as often as one likes

On a GPU one token is about five small kernels for each layer. Launching them from Python takes far
longer than they do, so they are recorded once, as a CUDA graph, and played again for each token.
For a few rows of text each of the five reads one of the layer's matrices and does all that stands
before and after the product on the way (`fused_block`); for more rows the modules themselves run.
On Hopper and later each of the five begins "early": it asks for its matrix while the one before it
still runs, so that the memory never waits.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from transnormer_edu.activation import ACTIVATIONS
from transnormer_edu.layers import Block
from transnormer_edu.lightning import decode_step, projection, projection_serves
from transnormer_edu.model import State, TransNormerLLM
from transnormer_edu.norm import SRMSNorm


class Decoder:
    """One token after another from `state`, which stays as it is.

    model      it must not be trained or moved while the decoder is used
    compiled   fuse each block's small operations by torch.compile: worth it for many tokens on a
               GPU, where the rows are too many for `fused_block`
    """

    def __init__(self, model: TransNormerLLM, state: State, compiled: bool = False):
        self.model = model
        self.states = [layer.clone() for layer in state.layers]
        self.position = state.position.clone()
        self.token = torch.zeros_like(self.position)
        weight = model.model["embed_tokens"].weight
        blocks = model.model["layers"]
        x = weight.new_empty(len(self.position), model.config.dim)
        self.fused = projection_serves(x) and all(map(_fusible, blocks))
        self.fused = self.fused and isinstance(model.model["final_norm"], SRMSNorm)
        self.steps = [_Compiled(b) for b in blocks] if compiled and not self.fused else blocks
        self.graph = record(self._step, self._keep()) if weight.is_cuda else None

    @torch.no_grad()
    def __call__(self, token: Int[Tensor, "b"]) -> Float[Tensor, "b V"]:
        """The logits after this token. On a GPU the next call writes over them."""
        self.token.copy_(token)
        if self.graph is None:
            self._step()
        else:
            self.graph.replay()
        return self.logits

    def _step(self) -> None:
        position = self.position[:, None]
        x = self.model.embed(self.token[:, None], position)
        if self.fused:
            x = x[:, 0]
            for block, state in zip(self.steps, self.states, strict=True):
                x = fused_block(block, x, position, state)
            norm, words = self.model.model["final_norm"], self.model.model["embed_tokens"]
            self.logits = projection(x, words.weight, norm=True, eps=norm.eps, early=True)
        else:
            for block, state in zip(self.steps, self.states, strict=True):
                q, k, v, u = block.before(x, position)
                x = block.after(x, block.remember(q, k, v, state), u)
            self.logits = self.model.head(x)[:, 0]
        self.position += 1

    def _keep(self) -> Callable:
        """What brings back the state as it is now."""
        kept = [x.clone() for x in (*self.states, self.position)]

        def go_back():
            for x, before in zip((*self.states, self.position), kept, strict=True):
                x.copy_(before)

        return go_back


@torch.no_grad()
def record(step: Callable, go_back: Callable = lambda: None) -> torch.cuda.CUDAGraph:
    """Step twice, so that kernels and memory are there; undo that; record one step as a graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
        step()
    torch.cuda.current_stream().wait_stream(stream)
    go_back()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


def fused_block(
    block: Block, x: Float[Tensor, "b d"], position: Int[Tensor, "b 1"], state: Tensor
) -> Float[Tensor, "b d"]:
    """One token through one block in five launches, four of which read a matrix (or two).

    q, k, v, u = W_qkvu norm(x), silu for q and k;   S = lambda S + k v^T, o = q S, in place
    x = x + W_out (u * norm(o));   h = (W_1 norm(x)) * (W_2 norm(x));   x = x + W_3 h
    """
    gla, sglu = block.token_mixer, block.channel_mixer
    hidden = gla.out_proj.in_features
    qkvu = projection(x, gla.qkvu_proj.weight, norm=True, silu_below=2 * hidden, early=True)
    q, k, v = qkvu[:, : 3 * hidden].view(len(x), 3, gla.heads, -1).unbind(1)
    u = qkvu[:, 3 * hidden :]
    turn = {} if gla.lrpe is None else {"theta": gla.lrpe.theta, "position": position[:, 0]}
    o = decode_step(q, k, v, gla.rate, state, **turn, early=True).flatten(1)
    x = projection(o, gla.out_proj.weight, norm=True, gate=u, add=x, early=True)
    h = projection(x, sglu.l1.weight, norm=True, pair=sglu.l2.weight, early=True)
    return projection(h, sglu.l3.weight, add=x, early=True)


def _fusible(block: Block) -> bool:
    """Whether `fused_block` says what this block does: the released models' choices."""
    gla, sglu = block.token_mixer, block.channel_mixer
    layers = gla.qkvu_proj, gla.out_proj, sglu.l1, sglu.l2, sglu.l3
    norms = block.token_norm, gla.norm, block.channel_norm
    return (
        all(type(layer) is nn.Linear for layer in layers)  # not one whose weights are quantised
        and all(isinstance(norm, SRMSNorm) for norm in norms)
        and not block.parallel
        and gla.gate == "full"
        and gla.activation is ACTIVATIONS["silu"]
        and sglu.activation is ACTIVATIONS["none"]
    )


class _Compiled:
    """A block whose two parts beside the state are compiled, once for all blocks alike."""

    def __init__(self, block: Block):
        self.before = torch.compile(block.before, dynamic=False)
        self.after = torch.compile(block.after, dynamic=False)
        self.remember = block.remember
