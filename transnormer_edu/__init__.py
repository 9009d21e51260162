"""TransNormerLLM, taught and implemented: linear attention with decay (arXiv 2307.14995).

Each file is one idea and can be read alone, in this order: attention, decay, lrpe, norm, layers,
model, generate. `transformer` is the softmax baseline, `lightning` the door to the fast kernels.
"""

from transnormer_edu.config import TransNormerConfig
from transnormer_edu.generate import generate
from transnormer_edu.model import TransNormerLLM

__all__ = ["TransNormerConfig", "TransNormerLLM", "generate"]
__version__ = "0.1.0"
