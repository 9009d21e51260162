"""The whole language model, around whatever blocks it is built of.

    x = scale * E[ids]              ids (b, n) -> x (b, n, d); perhaps plus a sinusoid of t
    x = block_l(x)                  l = 0 .. L-1
    logits = norm(x) E^T            (b, n, V): the head is the embedding

`LanguageModel` is all that a TransNormerLLM and the softmax baseline share: reading ids, padding,
loss, state, saving. `TransNormerLLM` names its blocks. Weights bear the released models' names.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Integer
from torch import Tensor, nn

from transnormer_edu import check, checkpoint
from transnormer_edu.config import TransNormerConfig
from transnormer_edu.cross_entropy import IGNORED_LABEL, autocast_type, cross_entropy
from transnormer_edu.layers import Block
from transnormer_edu.norm import NORMS
from transnormer_edu.sinusoid import add_sinusoid

WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


class State(NamedTuple):
    """What a model remembers of the tokens it has read, to go on from there.

    layers     per layer: for TransNormerLLM one (b, h, dk, dv) tensor, whatever n was
    position   (b,) how many tokens each row has read
    """

    layers: tuple
    position: Int[Tensor, "b"]


class LanguageModel(nn.Module):
    """Embedding, blocks, final norm and tied head; a subclass says what its blocks are."""

    def __init__(self, config, block: type[nn.Module]):
        super().__init__()
        check.kind("config", config, self.config_class)
        self.config = config
        self.model = nn.ModuleDict(
            {
                "embed_tokens": nn.Embedding(config.vocab_size, config.dim),
                "layers": nn.ModuleList(block(config, layer) for layer in range(config.layers)),
                "final_norm": NORMS[config.norm](config.dim),
            }
        )
        self._initialise()

    def forward(
        self,
        ids: Integer[Tensor, "b n"],
        labels: Integer[Tensor, "b n"] | None = None,
        attention_mask: Tensor | None = None,
        state: State | None = None,
        return_state: bool = False,
    ):
        """Logits (b, n, V), or with `labels` the loss; with `return_state` also the state.

        labels           the ids themselves: position t is asked for label t+1; -100 is left out
        attention_mask   (b, n), 0 or False at padding, wherever it stands: a row gives the logits
                         and the state of its real tokens alone (logits at padding mean nothing)
        state            from an earlier call: the ids go on where it stopped

        The loss is the mean cross-entropy in nats per token, NaN where no label is left.
        Raises ValueError, or TypeError for what is no tensor, in one sentence, for ids, labels,
        mask or state that do not fit.
        """
        self.check_input(ids, labels, attention_mask, state)
        ids, real, order = _padding_to_the_left(ids.long(), attention_mask)
        x, state = self._read(ids, real, state, return_state)
        if labels is not None:
            out = self._loss(x, _next_labels(labels.long(), real, order))
        else:
            logits = self.head(x)
            out = logits if order is None else _put_back(logits, order)
        return (out, state) if return_state else out

    def next_token(
        self, ids: Integer[Tensor, "b n"], attention_mask: Tensor | None = None, state=None
    ) -> tuple[Float[Tensor, "b V"], State]:
        """The logits after each row's last real token alone, and the state: what decoding needs.

        (Those of a long prompt would be n V numbers, of which n - 1 rows are thrown away.)
        Raises what `forward` raises, and ValueError for a row that is all padding.
        """
        self.check_input(ids, None, attention_mask, state)
        if attention_mask is not None and not attention_mask.bool().any(dim=1).all():
            raise ValueError("a row of attention_mask has no real token; expected at least one")
        ids, real, _ = _padding_to_the_left(ids.long(), attention_mask)
        x, state = self._read(ids, real, state, return_state=True)
        return self.head(x[:, -1]), state

    def nats(
        self,
        ids: Integer[Tensor, "b n"],
        targets: Integer[Tensor, "b n"],
        state: State | None = None,
        return_state: bool = False,
    ):
        """Sum of -ln p(target) over what stands after each token; -100 is left out.

        With `return_state` also the state.

        The logits are never there as a whole: see `cross_entropy`. Raises what `forward` raises.
        """
        self.check_input(ids, targets, None, state)
        x, state = self._read(ids.long(), None, state, return_state)
        out = self._loss(x, targets.long(), torch.tensor(1, device=x.device))
        return (out, state) if return_state else out

    def _read(self, ids, real, state, return_state):
        """The blocks' output (b, n, d), and with `return_state` the state after the last token."""
        position = _positions(ids, real, state)
        x = self.embed(ids, position)
        kept = []
        for i, layer in enumerate(self.model["layers"]):
            layer_state = state.layers[i] if state is not None else None
            x, layer_state = layer(x, position, real, layer_state, return_state)
            kept.append(layer_state)
        return x, State(tuple(kept), _read_so_far(ids, real, state)) if return_state else None

    def embed(self, ids, position):
        """What the first block is given, (b, n, d), for ids (b, n) at their positions."""
        x = self.model["embed_tokens"](ids) * self.config.embedding_scale
        x = x.to(autocast_type(x))  # all blocks read it and add to it: in bf16 half the bytes
        return add_sinusoid(x, position) if self.config.absolute_position else x

    def _loss(self, x, labels, count=None):
        x = self.model["final_norm"](x).flatten(0, 1)
        return cross_entropy(x, self.model["embed_tokens"].weight, labels.flatten(), count)

    def head(self, x):
        """Logits (..., V) of what the last block gives, (..., d)."""
        return F.linear(self.model["final_norm"](x), self.model["embed_tokens"].weight)

    def save_pretrained(self, folder) -> None:
        """Write config.json and model.safetensors, in the released format, whole or not at all.

        The original code reads such a folder, too, to the same logits, where the config has none
        but its choices. It knows of no other gate, glu_activation, decay, block, quantization or
        absolute_position than the defaults, nor of norm "rmsnorm", and says nothing of those.
        """
        checkpoint.save(folder, self)

    @classmethod
    def from_pretrained(
        cls,
        folder,
        dtype: torch.dtype | str | None = None,
        *,
        variant: str | None = None,
        subfolder: str | None = None,
        progress: bool = False,
    ) -> "LanguageModel":
        """A model with the weights and config of `folder`, in their own type or in `dtype`.

        folder      config.json beside weights: model.safetensors or pytorch_model.bin, whole or in
                    shards, or AutoGPTQ's file; or "owner/name" on Hugging Face's hub
        dtype       torch.float16 or its name; in float64 the decay rates are exact
        variant     for a later series, of which less is known: "transnormerllm2", whose mixers are
                    taken to stand side by side (`layers.Block`), or "transnormerllm3", with a gate
                    of rank 16 that is found by its shape, whatever its tensors are called. Neither
                    was verified with real weights.
        subfolder   of `folder`, for repositories with several revisions of the weights
        progress    show a bar

        Nothing in the folder is executed. At most one copy of the weights is held, in `dtype`,
        but for .bin files of before PyTorch 1.6, which cannot be mapped. Raises FileNotFoundError
        or ValueError, naming file and tensor, where something is missing, extra, damaged or of
        another shape.
        """
        choices = dict(variant=variant, subfolder=subfolder, progress=progress)
        return checkpoint.load(folder, cls, dtype, **choices)

    @torch.no_grad()
    def _initialise(self):
        """N(0, init_std) for linear and embedding weights; the embedding of the pad token is 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=self.config.init_std)
        self.model["embed_tokens"].weight[self.config.pad_token_id] = 0

    def check_input(self, ids, labels=None, attention_mask=None, state=None) -> None:
        """Raise what `forward` raises for an input that does not fit, before anything is done."""
        optional = check.present(labels=labels, attention_mask=attention_mask)
        check.tensors(ids=ids, **optional)
        if ids.ndim != 2 or 0 in ids.shape or ids.dtype not in WHOLE:
            raise ValueError(
                f"got ids {tuple(ids.shape)} of {ids.dtype}; expected whole numbers (b, n), n >= 1"
            )
        for name, other in optional.items():
            if other.shape != ids.shape:
                raise ValueError(
                    f"got {name} {tuple(other.shape)}, ids {tuple(ids.shape)}; expected one shape"
                )
        if labels is not None and labels.dtype not in WHOLE:
            raise ValueError(f"got labels of {labels.dtype}; expected token ids, whole numbers")
        check.one_device(model=self.model["embed_tokens"].weight, ids=ids, **optional)
        if state is not None:
            self._check_state(ids, state)
        # Reading values makes the host wait for a GPU, and cannot be traced: only on the CPU.
        if ids.device.type == "cpu" and not torch.compiler.is_compiling():
            self.check_values(ids, labels, attention_mask)

    def _check_state(self, ids, state):
        is_ours = isinstance(state, State) and isinstance(state.layers, tuple | list)
        is_ours = is_ours and isinstance(state.position, Tensor) and state.position.dtype in WHOLE
        if not is_ours:
            raise ValueError(
                f"got a state of type {type(state).__name__}; expected the State that an earlier "
                "call of this model returned, as it was returned"
            )
        for layer in state.layers:
            if not isinstance(layer, self.state_kind):
                raise ValueError(
                    f"got a state of {type(layer).__name__}s, but this model keeps "
                    f"{self.state_kind.__name__}s: is it another model's?"
                )
        if len(state.layers) != self.config.layers or state.position.shape != ids.shape[:1]:
            raise ValueError(
                f"got a state of {len(state.layers)} layers and {len(state.position)} rows; this "
                f"model has {self.config.layers} layers and was given {len(ids)} rows of ids"
            )
        check.one_device(ids=ids, state=state.position)

    def check_values(self, ids, labels=None, attention_mask=None) -> None:
        """ValueError for ids or labels outside the vocabulary, or a mask of other than 0 and 1."""
        ids = ids.long()  # uint8 cannot be compared with 64000, nor be -100
        used = labels.long() if labels is not None else ids[:0]
        for name, tokens in (("id", ids), ("label", used[used != IGNORED_LABEL])):
            wrong = tokens[(tokens < 0) | (tokens >= self.config.vocab_size)]
            if wrong.numel():
                raise ValueError(
                    f"{name} {int(wrong[0])} is outside the vocabulary; expected 0 to "
                    f"{self.config.vocab_size - 1}: is this the model's own tokenizer?"
                )
        if attention_mask is not None:
            wrong = attention_mask[(attention_mask != 0) & (attention_mask != 1)]
            if wrong.numel():
                raise ValueError(
                    f"attention_mask holds {wrong[0].item()}; expected 0 at padding, 1 elsewhere"
                )


class TransNormerLLM(LanguageModel):
    """A TransNormerLLM (arXiv 2307.14995) of the sizes and choices in `config`.

    Its state is one (b, h, dk, dv) tensor a layer, however much was read. Under
    torch.device("meta") it has shapes but costs no memory. A new model's weights are not of few
    bits, whatever the config says: `quantise` and `from_pretrained` make one whose are.
    """

    config_class = TransNormerConfig
    state_kind = Tensor

    def __init__(self, config: TransNormerConfig):
        super().__init__(config, Block)
        self.config = replace(config, quantization=None)


def _padding_to_the_left(ids, mask):
    """ids with each row's padding first, which of them are real, and how they were sorted.

    At the left padding can only be forgotten, and every row ends with its last real token. The
    real tokens keep their order. Without a mask nothing is moved, and the last two are None.
    """
    if mask is None:
        return ids, None, None
    real, order = mask.bool().int().sort(dim=1, stable=True)
    return ids.gather(1, order), real.bool(), order


def _positions(ids, real, state) -> Int[Tensor, "n"] | Int[Tensor, "b n"]:
    """Where each token stands in its own text, counted from 0, padding left out."""
    if real is None:
        position = torch.arange(ids.shape[1], device=ids.device)
    else:
        position = (real.cumsum(dim=1) - 1).clamp(min=0)
    return position if state is None else position + state.position[:, None]


def _read_so_far(ids, real, state) -> Int[Tensor, "b"]:
    new = ids.new_full(ids.shape[:1], ids.shape[1]) if real is None else real.sum(dim=1)
    return new if state is None else new + state.position


def _put_back(x: Tensor, order: Tensor) -> Tensor:
    """Undo the sorting of rows: what stands at column j goes back to column order[j]."""
    return torch.empty_like(x).scatter(1, order[..., None].expand_as(x), x)


def _next_labels(labels, real, order) -> Int[Tensor, "b n"]:
    """For each token the one after it; -100 where there is none, or padding before a text."""
    if order is not None:
        labels = labels.gather(1, order)
        # A first real token is not foretold from the padding before it. (Where the roll wraps
        # around, at column 0, stands nobody's next token.)
        labels = labels.masked_fill(~(real & real.roll(1, dims=1)), IGNORED_LABEL)
    # The labels are moved, not x cut: a slice of it would be copied in the backward.
    return F.pad(labels[:, 1:], (0, 1), value=IGNORED_LABEL)
