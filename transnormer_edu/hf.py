"""Our models in Hugging Face's library: importing this file makes its Auto classes know them.

    import transnormer_edu.hf
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained("folder", dtype="bfloat16")
    model.generate(ids, attention_mask=mask, num_beams=4, max_new_tokens=20)

Folders are read and written by this package, nothing in them is executed. `model.network` is the
TransNormerLLM itself. Needs transformers: pip install "transnormer-edu[hf]".
"""

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

try:
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        GenerationMixin,
        PretrainedConfig,
        PreTrainedModel,
    )
    from transformers.modeling_outputs import CausalLMOutputWithPast
except ImportError as error:
    raise ImportError(
        f'transnormer_edu.hf needs transformers ({error}): pip install "transnormer-edu[hf]"'
    ) from None

from transnormer_edu import check
from transnormer_edu.config import TransNormerConfig
from transnormer_edu.model import IGNORED_LABEL, State, TransNormerLLM
from transnormer_edu.released_config import config_from_json, config_to_json


class HFConfig(PretrainedConfig):
    """config.json as it stands in a folder; `own()` is the TransNormerConfig that it means."""

    model_type = TransNormerConfig.model_type

    def __init__(self, **fields):
        # The library checks the types of these by itself; the names are the released models'.
        self.num_hidden_layers = fields.get("decoder_layers")
        self.hidden_size = fields.get("decoder_embed_dim")
        super().__init__(**fields)

    @classmethod
    def of(cls, config: TransNormerConfig) -> "HFConfig":
        """The library's config for one of ours."""
        return cls(**config_to_json(config))

    def own(self) -> TransNormerConfig:
        """Our config; ValueError in one sentence for what cannot work."""
        return config_from_json(TransNormerConfig, self.to_dict())


class Memory:
    """What generate() hands from one token to the next: our state, and how many columns it read.

    A row's real tokens are fewer than its columns where it was padded.
    """

    is_compileable = False

    def __init__(self, state: State, columns: int):
        self.state, self.columns = state, columns

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Columns that were read."""
        return self.columns

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Row i goes on from what row beam_idx[i] has read: a beam was dropped for another's."""
        rows = beam_idx.to(self.state.position.device)
        layers = tuple(layer.index_select(0, rows) for layer in self.state.layers)
        self.state = State(layers, self.state.position.index_select(0, rows))


class HFTransNormer(PreTrainedModel, GenerationMixin):
    """A TransNormerLLM that the library can drive; its parameters bear the released names."""

    config_class = HFConfig
    main_input_name = "input_ids"
    accepts_loss_kwargs = False  # the loss is a mean: the library divides by its accumulation steps

    def __init__(self, config: HFConfig, network: TransNormerLLM | None = None):
        super().__init__(config)
        network = TransNormerLLM(config.own()) if network is None else network
        self.model = network.model
        # Not as a submodule: its parameters are the ones above, and have one name each.
        object.__setattr__(self, "network", network)
        self.post_init()

    @classmethod
    def from_pretrained(cls, name, *_, config=None, dtype=None, torch_dtype=None, **choices):
        """As `TransNormerLLM.from_pretrained`, whose choices it takes, and a device.

        dtype    a type or its name; None or "auto": that of the weights
        device   where the model goes; device_map says the same, also as {"": device}

        What else the library passes on, about its own way of loading, changes nothing here. (Its
        Auto classes want a config.json in the subfolder; this method takes the one above, too.)
        """
        dtype = torch_dtype if dtype is None else dtype
        ours = {key: choices.pop(key, None) for key in ("variant", "subfolder")}
        network = TransNormerLLM.from_pretrained(
            str(name), None if dtype == "auto" else dtype, **check.present(**ours)
        )
        model = cls(HFConfig.of(network.config), network).eval()
        device = _one_device(choices.get("device", choices.get("device_map")))
        return model if device is None else model.to(device)

    def save_pretrained(self, save_directory: str | Path, **_) -> None:
        """A folder in the released format: see `TransNormerLLM.save_pretrained`."""
        self.network.save_pretrained(save_directory)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        past_key_values: Memory | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        return_dict: bool | None = None,
        **_,
    ):
        """Logits (b, n, V), with `labels` the loss, with `use_cache` the memory.

        attention_mask    (b, n), or (b, m + n) after m columns that were read before
        """
        columns = input_ids.shape[1]
        mask = None if attention_mask is None else attention_mask[:, -columns:].bool()
        read = dict(attention_mask=mask, state=past_key_values and past_key_values.state)
        if logits_to_keep == 1 and labels is None:
            logits, state = self.network.next_token(input_ids, **read)
            logits = logits[:, None]
        else:
            logits, state = self.network(input_ids, **read, return_state=True)
        columns += past_key_values.columns if past_key_values else 0
        out = CausalLMOutputWithPast(
            loss=None if labels is None else _loss(logits, labels, mask),
            logits=logits[:, -logits_to_keep:],
            past_key_values=Memory(state, columns) if use_cache is not False else None,
        )
        return out.to_tuple() if return_dict is False else out

    def prepare_inputs_for_generation(
        self, input_ids, past_key_values=None, attention_mask=None, use_cache=True, **_
    ):
        """Only the columns that the memory has not read yet."""
        read = 0 if past_key_values is None else past_key_values.columns
        return {
            "input_ids": input_ids[:, read:],
            "attention_mask": attention_mask,
            "past_key_values": past_key_values,
            "use_cache": use_cache,
            "logits_to_keep": 1,
        }

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # the library's caches hold keys and values

    def _init_weights(self, module) -> None:
        """The network has initialised itself."""

    def get_input_embeddings(self):
        return self.model["embed_tokens"]

    def resize_token_embeddings(self, *args, **choices):
        """As the library's; the network's own config, which is saved, follows."""
        embedding = super().resize_token_embeddings(*args, **choices)
        self.network.config = replace(self.network.config, vocab_size=embedding.num_embeddings)
        return embedding


def _one_device(where):
    """The device that `where` names or maps the whole model to; None: where it is."""
    if isinstance(where, dict):
        if len(set(where.values())) != 1:
            raise ValueError(f'device_map is {where}; expected one device, as in {{"": "cuda"}}')
        (where,) = set(where.values())
    if where in ("auto", "balanced", "balanced_low_0", "sequential"):
        return "cuda" if torch.cuda.is_available() else "cpu"
    return where


def _loss(logits: Tensor, labels: Tensor, mask: Tensor | None) -> Tensor:
    """Cross-entropy of each next token; none is asked for at padding, or foretold from it."""
    labels = labels[:, 1:].long()
    if mask is not None:
        labels = labels.masked_fill(~(mask[:, 1:] & mask[:, :-1]), IGNORED_LABEL)
    wide = logits[:, :-1].to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(wide.flatten(0, 1), labels.flatten(), ignore_index=IGNORED_LABEL)


AutoConfig.register(HFConfig.model_type, HFConfig)
AutoModelForCausalLM.register(HFConfig, HFTransNormer)
