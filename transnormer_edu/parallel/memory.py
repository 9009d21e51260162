"""How much memory of each GPU one update takes, counted before anything is built.

    M = weights + gradients + optimiser + activations + state + buffers

as `divide(..., bf16=True)` trains with AdamW, on GPUs with the kernels, nothing compiled. All D S T
GPUs share the P parameters, all of them in float32 (bytes):

    weights 4 P / (D S T),    gradients 4 P / (D S T),    optimiser 8 P / (D S T)

Activations are what the forward keeps for the backward. For one token and one block, in bytes:

    both norms      12 d + 8                   x in float32, 1 / rho, and what comes out
    q, k, v, u      8 h   (h = hidden / T)     as projected; after the activation 4 h more of q, k
    o, u * norm(o)  4 h                        8 h + 4 where the norm spans several GPUs
    SGLU            6 g / T                    x W_1, x W_2, their product
    LRPE            8 h                        q, k with twice the features; and its angles

Recomputing, only a block's input is kept, 2 d, and all of the above for one block at a time.

No moment needs all of it: `moments` has those that can be the largest, `peak` the one that is.
"""

from dataclasses import dataclass
from functools import cached_property

from transnormer_edu import check
from transnormer_edu.config import TransNormerConfig
from transnormer_edu.cross_entropy import PIECE
from transnormer_edu.layers import Block
from transnormer_edu.parallel.mesh import MeshShape
from transnormer_edu.parallel.order import parts_of
from transnormer_edu.undrawn import shapes_alone

PARTS = ("weights", "gradients", "optimiser", "activations", "state", "buffers")
MULTIPROCESSORS = 132  # of an H100: as many segments does the kernel cut a text into, at most
WORKSPACE = 2**25  # what the matrix products of a Hopper ask for


@dataclass(frozen=True)
class Job:
    """One update: `rows` texts of `context` tokens, on a mesh; ValueError where they do not fit."""

    config: TransNormerConfig
    shape: MeshShape
    rows: int
    context: int
    recompute: bool = False

    def __post_init__(self):
        check.whole("batch_size", self.rows)
        check.whole("context", self.context, least=2)
        self.shape.check_model(self.config)
        self.shape.check_batch(self.rows, self.context)

    @property
    def own_rows(self) -> int:
        """Texts of one data rank."""
        return self.rows // self.shape.data

    @property
    def stretch(self) -> int:
        """Tokens of a text that one GPU has."""
        return self.context // self.shape.sequence

    @property
    def tokens(self) -> int:
        """Tokens of one GPU."""
        return self.own_rows * self.stretch

    @property
    def shards(self) -> int:
        """GPUs that share the weights of the same heads: D S."""
        return self.shape.data * self.shape.sequence

    @property
    def embedding(self) -> int:
        """Parameters of the own words."""
        return -(-self.config.vocab_size // self.shape.tensor) * self.config.dim

    @property
    def matrices(self) -> int:
        """Parameters of the own share of a block, without angles."""
        return (self._whole_block - self.config.hidden_dim * self.has_lrpe(0)) // self.shape.tensor

    @property
    def angles(self) -> int:
        """Parameters of the own heads' LRPE, of a layer that has it."""
        return self.config.hidden_dim // self.shape.tensor

    @property
    def parameters(self) -> int:
        """Parameters of the own heads and words: what the D S GPUs share."""
        config = self.config
        blocks = config.layers * self.matrices + len(config.lrpe_layers) * self.angles
        return self.embedding + blocks

    def has_lrpe(self, layer: int) -> bool:
        """Whether the layer turns q and k by position."""
        return layer in self.config.lrpe_layers

    @cached_property
    def _whole_block(self) -> int:
        with shapes_alone():
            return sum(p.numel() for p in Block(self.config, 0).parameters())


def moments(job: Job) -> dict[str, dict[str, int]]:
    """Moment -> part -> bytes: at the loss, in three moments of the backward, in the update."""
    d, held = job.config.dim * job.tokens, 4 * job.parameters // job.shards
    always = {"weights": held, "optimiser": 2 * held}
    kept, state = _kept(job)
    out = (4 * job.config.dim + 4) * job.tokens  # of the last norm
    words, block = 4 * job.embedding, 2 * job.matrices  # brought together: float32, and bfloat16
    whole = words if job.shape.tensor == 1 else 4 * job.config.vocab_size * job.config.dim
    done = held - words // job.shards
    alone = job.shards == 1
    found = {
        "loss": dict(activations=kept + out, state=state, buffers=block + words + _loss(job)),
        "last block's backward": dict(
            activations=kept + max(_in_backward(job, job.config.layers - 1), out + 20 * d),
            state=state,
            buffers=2 * words + (block if alone else 2 * block),
        ),
        "first block's backward": dict(
            gradients=done - 4 * job.matrices // job.shards,
            activations=_in_backward(job, 0),
            state=_state(job, 0),
            buffers=2 * words + 3.5 * block,
        ),
        "embedding's backward": dict(
            gradients=done,
            activations=8 * d,
            buffers=2 * words + max((4 if alone else 3) * block, words + whole + 2 * block),
        ),
        "update": dict(gradients=held),
    }
    return {moment: _parts(always | parts) for moment, parts in found.items()}


def _parts(given):
    found = dict.fromkeys(PARTS, 0) | given
    found["buffers"] += WORKSPACE
    return {part: int(size) for part, size in found.items()}


def peak(job: Job) -> tuple[str, dict[str, int]]:
    """The moment that needs most, and its parts."""
    return max(moments(job).items(), key=lambda one: sum(one[1].values()))


def kept_by_block(job: Job, layer: int) -> int:
    """Bytes of activations that a block's forward keeps for its backward."""
    config, t = job.config, job.shape.tensor
    d, h, g = config.dim, config.hidden_dim // t, config.glu_dim // t
    gate = config.gate != "none"
    token = 2 * (4 * d + 2 * d + 4)
    token += 2 * h * parts_of(config) + 4 * h
    if isinstance(config.gate, int):
        token += 2 * config.gate + 2 * h
    fused = gate and t == 1
    token += 4 * h if fused else 4 * h + 4 + 2 * h + 2 * h * gate
    token += 6 * g + 2 * g * (config.glu_activation != "none")
    if job.has_lrpe(layer):
        token += 8 * h
    angles = 24 * h * job.stretch * job.has_lrpe(layer)  # q, k: angle, sin, cos; for all rows
    return token * job.tokens + angles


def state_bytes(job: Job, layer: int) -> int:
    """Bytes of one state of all own heads and texts, in float32: 4 b (H / T) dk dv."""
    heads, width = job.config.heads // job.shape.tensor, job.config.head_dim
    return 4 * job.own_rows * heads * width * width * (2 if job.has_lrpe(layer) else 1)


def _state(job, layer):
    """What one layer keeps of states: at the borders of the kernel's segments, and what came in."""
    heads = job.own_rows * job.config.heads // job.shape.tensor
    wanted = max(1, min(MULTIPROCESSORS // heads, job.stretch // 128))
    segments = -(-job.stretch // (-(-job.stretch // (wanted * 64)) * 64))
    borders = segments if segments > 1 else 0
    handed_on = job.shape.sequence > 1  # what came in
    return int((borders + handed_on) * state_bytes(job, layer))


def _kept(job):
    """Activations and states of all blocks after the forward."""
    layers = range(job.config.layers)
    if job.recompute:
        return len(layers) * 2 * job.config.dim * job.tokens, 0
    return sum(kept_by_block(job, i) for i in layers), sum(_state(job, i) for i in layers)


def _in_backward(job, layer):
    """What a block's backward has on top of what was kept (recomputing: all that it keeps)."""
    d, g = job.config.dim, job.config.glu_dim // job.shape.tensor
    own = kept_by_block(job, layer) if job.recompute or layer == 0 else 0
    return own + max(2 * d + 4 * g, 20 * d - 6 * g) * job.tokens


def _loss(job):
    """The loss's own: logits of a piece beside those of the one before, or beside the words'
    gradient twice, while a product is added to it."""
    own = job.config.vocab_size // job.shape.tensor
    rows = min(job.tokens, max(1, PIECE["cuda"] // own))
    narrow, wide, x = 2 * job.embedding, 4 * job.embedding, 2 * job.config.dim * job.tokens
    logits = 2 * rows * own
    computed = (1 if job.shape.tensor == 1 else 3) * logits  # divided, in float32 too
    return narrow + wide + 2 * x + max(computed + logits * (job.tokens > rows), logits + wide)
