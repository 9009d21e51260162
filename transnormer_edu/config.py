"""What makes one TransNormerLLM differ from another, and the sizes that were published."""

import math
from dataclasses import dataclass
from typing import ClassVar

from transnormer_edu import check
from transnormer_edu.activation import ACTIVATIONS
from transnormer_edu.decay import SCHEDULES
from transnormer_edu.gptq import GPTQFormat
from transnormer_edu.norm import NORMS

BLOCKS = ("sequential", "parallel")


@dataclass(frozen=True)
class TransNormerConfig:
    """Sizes and choices of a model; the defaults are those of the released models.

        vocab_size       V     tokens the model knows
        dim              d     width
        layers           L
        heads            H     hidden_dim / heads features each: 128 in every released model
        glu_dim          g     width inside SGLU; -1 means g = d
        hidden_dim             width inside GLA; None means d
        activation             of q and k in GLA, one of `ACTIVATIONS`
        lrpe_layers            the layers whose q and k are rotated by LRPE
        scale_embedding        multiply embeddings by sqrt(d)
        gate                   "full": u is a projection of the input; a number: through that many
                               features (16 in TransNormerLLM3-15B); "none": no gate
        block                  "sequential", or "parallel" as in TransNormerLLM2: see `layers.Block`
        glu_activation         of the gate in SGLU, one of `ACTIVATIONS`
        norm                   one of `NORMS`
        decay                  one of `SCHEDULES`
        absolute_position      add a sinusoid of its position to each embedding (our own choice)
        init_std               standard deviation of initial weights
        quantization           how the blocks' matrices are stored in few bits; None: they are not.
                               Said of stored weights; a new model has None

    Raises ValueError, or TypeError for quantization, in one sentence, for what cannot work.
    """

    model_type: ClassVar[str] = "transnormer"

    vocab_size: int
    dim: int
    layers: int
    heads: int
    glu_dim: int = -1
    hidden_dim: int | None = None
    activation: str = "silu"
    lrpe_layers: tuple[int, ...] = (0,)
    scale_embedding: bool = True
    gate: str | int = "full"
    glu_activation: str = "none"
    norm: str = "simplermsnorm"
    decay: str = "released"
    absolute_position: bool = False
    init_std: float = 0.02
    pad_token_id: int = 0
    bos_token_id: int = 1
    eos_token_id: int = 2
    block: str = "sequential"
    quantization: GPTQFormat | None = None

    def __post_init__(self):
        if self.hidden_dim is None:
            object.__setattr__(self, "hidden_dim", self.dim)
        if self.glu_dim == -1:
            object.__setattr__(self, "glu_dim", self.dim)
        check_sizes(self, ("hidden_dim",))
        self._check_layers()
        object.__setattr__(self, "lrpe_layers", tuple(sorted(set(self.lrpe_layers))))
        self._check_choices()

    @property
    def head_dim(self) -> int:
        """Features of q, k, v in one head."""
        return self.hidden_dim // self.heads

    @property
    def embedding_scale(self) -> float:
        """sqrt(d), or 1 where embeddings are not scaled."""
        return math.sqrt(self.dim) if self.scale_embedding else 1.0

    @classmethod
    def preset(cls, name: str, **changes) -> "TransNormerConfig":
        """A published size by name, with `changes` to single fields: preset("385m", layers=2)."""
        if str(name).lower() not in PRESETS:
            raise ValueError(f"no preset {name!r}; there are {', '.join(PRESETS)}")
        return cls(**{**PRESETS[name.lower()], **changes})

    def _check_layers(self):
        if self.hidden_dim % self.heads:
            raise ValueError(
                f"{self.heads} heads do not divide hidden_dim {self.hidden_dim}; choose a number "
                "of heads that does"
            )
        if not isinstance(self.lrpe_layers, tuple | list):
            raise ValueError(f"lrpe_layers is {self.lrpe_layers!r}, expected a tuple such as (0,)")
        for layer in self.lrpe_layers:
            if not check.is_whole(layer, below=self.layers):
                raise ValueError(
                    f"lrpe_layers names layer {layer!r}, expected 0 to {self.layers - 1}"
                )

    def _check_choices(self):
        for field, table in (
            ("activation", ACTIVATIONS),
            ("glu_activation", ACTIVATIONS),
            ("norm", NORMS),
            ("decay", SCHEDULES),
            ("block", BLOCKS),
        ):
            check.one_of(field, getattr(self, field), table)
        if self.gate not in ("full", "none"):
            if not check.is_whole(self.gate, least=1):
                raise ValueError(
                    f"gate is {self.gate!r}, expected 'full', 'none' or a rank such as 16"
                )
            object.__setattr__(self, "gate", int(self.gate))
        for field in ("scale_embedding", "absolute_position"):
            if not isinstance(getattr(self, field), bool):
                raise ValueError(f"{field} is {getattr(self, field)!r}, expected True or False")
        if self.quantization is not None:
            check.kind("quantization", self.quantization, GPTQFormat)
        if self.absolute_position and self.dim % 2:
            raise ValueError(
                f"dim is {self.dim}; expected an even one for absolute_position: half of it are "
                "sines, half cosines"
            )


def check_sizes(config, more: tuple[str, ...] = ()) -> None:
    """ValueError unless sizes, special tokens and init_std can work; for both models' configs.

    Sizes become Python's own integers, whatever kind they came as: only those go into a JSON file.
    """
    for field in ("vocab_size", "dim", "layers", "heads", "glu_dim", *more):
        object.__setattr__(config, field, check.whole(field, getattr(config, field)))
    for field in ("pad_token_id", "bos_token_id", "eos_token_id"):
        token = getattr(config, field)
        if not check.is_whole(token, below=config.vocab_size):
            raise ValueError(
                f"{field} is {token!r}, expected a token below vocab_size {config.vocab_size}"
            )
        object.__setattr__(config, field, int(token))
    if not check.is_number(config.init_std) or not 0 <= config.init_std < math.inf:
        raise ValueError(f"init_std is {config.init_std!r}, expected a number of at least 0")
    object.__setattr__(config, "init_std", float(config.init_std))


def _size(layers: int, dim: int, heads: int, glu_dim: int, **others) -> dict:
    sizes = {"layers": layers, "dim": dim, "heads": heads, "glu_dim": glu_dim}
    return {"vocab_size": 64000, **sizes, **others}


# Released: 385m, 1b, 7b (TransNormerLLM), 3b (TransNormerLLM2, here with its mixers in sequence),
# 15b (TransNormerLLM3). Sizes in the paper only: 13b, 65b, 175b.
PRESETS = {
    "385m": _size(24, 1024, 8, 2816),
    "1b": _size(16, 2048, 16, 5632),
    "3b": _size(32, 2560, 20, 6912, scale_embedding=False),
    "7b": _size(30, 4096, 32, 11008, scale_embedding=False),
    "13b": _size(36, 5120, 40, 13824),
    "15b": _size(42, 5120, 40, 15360, vocab_size=100280, gate=16),
    "65b": _size(72, 8192, 64, 22016),
    "175b": _size(88, 12288, 96, 32768),
}
