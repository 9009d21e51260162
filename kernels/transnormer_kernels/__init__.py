"""Triton kernels of TransNormerLLM. They know tensors and rates, nothing of the model."""

from .decode import decode_step
from .lightning import lightning_attention
from .lightning_v1 import lightning_attention_v1
from .loss import loss_and_gradient_
from .norm import srmsnorm, srmsnorm_gate

__all__ = [
    "decode_step",
    "lightning_attention",
    "lightning_attention_v1",
    "loss_and_gradient_",
    "srmsnorm",
    "srmsnorm_gate",
]
