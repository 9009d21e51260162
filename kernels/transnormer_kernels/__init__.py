"""Triton kernels of TransNormerLLM. They know tensors and rates, nothing of the model."""

from .decode import decode_step
from .lightning import lightning_attention
from .lightning_v1 import lightning_attention_v1
from .loss import loss_and_gradient_
from .norm import srmsnorm, srmsnorm_gate
from .projection import projection
from .quantised import few_bit_product

__all__ = [
    "decode_step",
    "few_bit_product",
    "lightning_attention",
    "lightning_attention_v1",
    "loss_and_gradient_",
    "projection",
    "srmsnorm",
    "srmsnorm_gate",
]
