"""Who is measured: TransNormerLLM, its softmax twin, and transformers' LLaMA, all of one size.

    parameters of a block    ours 5 d^2 + 3 d g      softmax 4 d^2 + 3 d g'      g' = g + d/3

rounded to a multiple of 64, which a GPU's matrix products like: less than half a percent off.
"""

import gc
import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from transnormer_edu import check
from transnormer_edu.config import TransNormerConfig
from transnormer_edu.model import TransNormerLLM
from transnormer_edu.speed.clock import seconds
from transnormer_edu.transformer import Transformer, TransformerConfig

NAMES = ("ours", "twin", "llama")
SMALL = TransNormerConfig(vocab_size=2048, dim=192, layers=3, heads=3, glu_dim=512)  # 2 million


def size(name: str) -> TransNormerConfig:
    """A preset, or "2m": the model that `transnormer-edu train` makes by default."""
    return SMALL if name == "2m" else TransNormerConfig.preset(name)


def twin_config(config: TransNormerConfig) -> TransformerConfig:
    """The softmax model of as many parameters."""
    glu_dim = 64 * round((config.glu_dim + config.dim / 3) / 64) or 64
    return TransformerConfig(config.vocab_size, config.dim, config.layers, config.heads, glu_dim)


def present(names: tuple[str, ...]) -> tuple[str, ...]:
    """Those that can run here: LLaMA needs transformers. ValueError for a name that is none."""
    for name in names:
        check.one_of("model", name, NAMES)
    return tuple(name for name in names if name != "llama" or find_spec("transformers"))


def build(name: str, config: TransNormerConfig, device: torch.device) -> nn.Module:
    """A model with random weights, made where it will run."""
    torch.manual_seed(0)
    with torch.device(device):
        if name == "ours":
            model = TransNormerLLM(config)
        elif name == "twin":
            model = Transformer(twin_config(config))
        else:
            model = Llama(twin_config(config))
    return model.to(device)


def parameters(model: nn.Module) -> int:
    """N, the tied head counted once."""
    return sum(p.numel() for p in model.parameters())


def forget() -> None:
    """Let go of what an earlier model left: memory, and what was compiled for its shapes."""
    torch.compiler.reset()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Llama(nn.Module):
    """transformers' LLaMA with the sizes of the twin, and as much of its interface as training
    needs: loss = model(ids, labels=ids).

    Its attention is PyTorch's under a name of ours: for that name transformers makes no mask. For
    its own name it makes one of n x n while a CUDA graph is recorded, and that costs memory, time
    and the fastest attention, which takes "causal" but no mask.
    """

    def __init__(self, config: TransformerConfig):
        super().__init__()
        from transformers import AttentionInterface, LlamaConfig, LlamaForCausalLM
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        AttentionInterface.register("causal_alone", sdpa_attention_forward)
        self.config = config
        self.whole = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=config.vocab_size, hidden_size=config.dim,
                num_hidden_layers=config.layers, num_attention_heads=config.heads,
                intermediate_size=config.glu_dim, max_position_embeddings=2**20,
                tie_word_embeddings=True, attn_implementation="causal_alone", use_cache=False,
            )
        )  # fmt: skip
        self.model = {"layers": self.whole.model.layers}

    def forward(self, ids: Tensor, labels: Tensor) -> Tensor:
        return self.whole(input_ids=ids, labels=labels, use_cache=False).loss


def back_ends(device: torch.device) -> tuple[SDPBackend, ...]:
    """The ways in which PyTorch may compute softmax attention here."""
    fused = (SDPBackend.FLASH_ATTENTION,)
    if device.type == "cuda":
        return (SDPBackend.CUDNN_ATTENTION, *fused, SDPBackend.EFFICIENT_ATTENTION)
    return (*fused, SDPBackend.MATH)


def softmax_speeds(
    shape: tuple[int, int, int, int], device, dtype, training: bool = False, keys: int | None = None
) -> dict[SDPBackend, float]:
    """Seconds of causal attention (b, h, n, dh), the fastest first; those that refuse are left out.

    training   with the backward      keys   so many keys for the n queries, all seen
    """
    b, h, n, dh = shape
    random = partial(torch.randn, device=device, dtype=dtype)
    q, k, v = (random(b, n, h, dh).transpose(1, 2) for _ in "qkv")  # as a projection leaves them
    if keys:
        k, v = (random(b, h, keys, dh) for _ in "kv")  # as a cache holds them
    for x in (q, k, v):
        x.requires_grad_(training)

    def attend():
        o = F.scaled_dot_product_attention(q, k, v, is_causal=keys is None)
        if training:
            torch.autograd.grad(o, (q, k, v), o.detach())

    found = {}
    for back_end in back_ends(device):
        try:
            with sdpa_kernel(back_end):
                found[back_end] = seconds(attend, device, rounds=3)
        except RuntimeError:  # not for this type or these sizes, or out of memory
            found[back_end] = math.inf
    return {key: found[key] for key in sorted(found, key=found.get) if found[key] < math.inf}


@contextmanager
def softmax_by(back_end: SDPBackend | None) -> Iterator[None]:
    """All softmax attention inside by this back end; None: whichever PyTorch takes."""
    if back_end is None:
        yield
    else:
        with sdpa_kernel(back_end):
            yield
