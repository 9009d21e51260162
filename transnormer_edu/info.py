"""What a model weighs and costs, counted before it is built: shapes, parameters, memory, FLOPs.

The model is made on the meta device, where tensors have shapes and no memory, so that 175 billion
parameters are counted in a second.
"""

from dataclasses import dataclass

from torch import nn

from transnormer_edu.config import TransNormerConfig
from transnormer_edu.layers import GLA
from transnormer_edu.pretrained import MODELS
from transnormer_edu.transformer import SoftmaxAttention, TransformerConfig
from transnormer_edu.undrawn import shapes_alone

Config = TransNormerConfig | TransformerConfig

# Mixed precision: fp32 weights, gradients and AdamW's two moments.
TRAINING_BYTES = 4 + 4 + 4 + 4


@dataclass(frozen=True)
class Summary:
    """Counts of one model.

    parameters     all, the tied head counted once
    embedding      of these, in the embedding
    shapes         of every parameter, by its name in the released format
    state_numbers  float32 numbers remembered for one text, of whatever length
    cache_numbers  float32 numbers remembered for every token of it (softmax alone: keys, values)
    flops          to read one token, forward: a multiplication and an addition are two
    """

    parameters: int
    embedding: int
    shapes: dict[str, tuple[int, ...]]
    state_numbers: int
    cache_numbers: int
    flops: int

    @property
    def training_flops(self) -> int:
        """Forward, and twice as much backward."""
        return 3 * self.flops

    @property
    def past_flops(self) -> int:
        """More of them, forward, for each token before: 2 dh for its score, 2 dh for its share."""
        return 2 * self.cache_numbers

    def weight_bytes(self, bytes_each: int) -> int:
        """Memory of the weights: 2 bytes each in bf16, 4 in fp32."""
        return bytes_each * self.parameters

    @property
    def training_bytes(self) -> int:
        """Weights, gradients and AdamW's moments in fp32; activations come on top."""
        return TRAINING_BYTES * self.parameters

    @property
    def state_bytes(self) -> int:
        """Memory of the state of one text, in fp32."""
        return 4 * self.state_numbers

    @property
    def cache_bytes(self) -> int:
        """Memory of the keys and values of one token, in fp32."""
        return 4 * self.cache_numbers


def summarise(config: Config) -> Summary:
    """Count the model of `config`.

    FLOPs per token: 2 for each weight of a matrix (the head among them), and in each layer
    2 dk dv per head to add k v^T to the state and 2 dk dv to read it with q. The softmax baseline
    has no state to read, but all tokens before: `past_flops` for each of them.
    """
    if not isinstance(config, Config):
        raise TypeError(f"config is a {type(config).__name__}, expected a model's config")
    with shapes_alone():
        model = MODELS[config.model_type](config)
    matrices = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    head = config.vocab_size * config.dim
    states = sum(_state_numbers(config, m) for m in model.modules() if isinstance(m, GLA))
    cached = sum(2 * config.dim for m in model.modules() if isinstance(m, SoftmaxAttention))
    return Summary(
        parameters=sum(p.numel() for p in model.parameters()),
        embedding=head,
        shapes={name: tuple(p.shape) for name, p in model.named_parameters()},
        state_numbers=states,
        cache_numbers=cached,
        flops=2 * (matrices + head) + 4 * states,
    )


def _state_numbers(config: TransNormerConfig, layer: GLA) -> int:
    doubled = 1 if layer.lrpe is None else 2  # LRPE makes two features of one in q and k
    return config.heads * doubled * config.head_dim * config.head_dim


def describe(config: Config) -> str:
    """The summary as a page of text; layers of equal shapes are listed once."""
    summary = summarise(config)
    lines = [
        f"parameters      {summary.parameters:,}  ({summary.embedding:,} in the embedding)",
        f"weights         {scaled(summary.weight_bytes(2), 'B')} in bf16, "
        f"{scaled(summary.weight_bytes(4), 'B')} in fp32",
        f"training        {scaled(summary.training_bytes, 'B')} of weights, gradients and AdamW; "
        "activations come on top",
        f"state           {_state_in_words(summary)}",
        f"compute         {scaled(summary.flops, 'FLOP')} a token forward, "
        f"{scaled(summary.training_flops, 'FLOP')} in training{_past_in_words(summary)}",
        "",
        "shapes",
    ]
    return "\n".join(lines + [f"  {name:50} {shape}" for name, shape in _folded(summary.shapes)])


def _state_in_words(summary: Summary) -> str:
    if summary.cache_numbers:
        return f"{scaled(summary.cache_bytes, 'B')} for every token of a text in fp32"
    return f"{scaled(summary.state_bytes, 'B')} a text in fp32, however long it is"


def _past_in_words(summary: Summary) -> str:
    if not summary.cache_numbers:
        return ""
    return f"; {scaled(summary.past_flops, 'FLOP')} more forward for each token before it"


def _folded(shapes: dict[str, tuple[int, ...]]) -> list[tuple[str, str]]:
    """Parameters by name, with the layers that have the same one folded into [first-last]."""
    rows: dict[tuple[str, tuple], list[int]] = {}
    for name, shape in shapes.items():
        _, found, rest = name.partition("model.layers.")
        number, _, end = rest.partition(".")
        key = (f"model.layers.{{}}.{end}" if found else name, shape)
        rows.setdefault(key, []).append(int(number) if found else -1)
    return [(name.format(_range(numbers)), str(shape)) for (name, shape), numbers in rows.items()]


def _range(numbers: list[int]) -> str:
    return str(numbers[0]) if len(numbers) == 1 else f"[{numbers[0]}-{numbers[-1]}]"


def scaled(count: float, unit: str) -> str:
    """1530, "B" -> 1.53 kB."""
    for prefix in ("", "k", "M", "G"):
        if count < 999.5:  # which three digits would write as 1e+03
            return f"{count:.3g} {prefix}{unit}"
        count /= 1000
    return f"{count:.3g} T{unit}"
