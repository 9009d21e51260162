"""The released models, computed a second time: plain loops from the facts, nothing of the package.

`forward` takes tensors by their names in the file and the config as it stands in config.json; it
works in float64 and goes token by token, head by head. `folder_of` writes small folders in the form
of each of the eight released models.
"""

import json
import math

import torch
from safetensors.torch import save_file

# name: config.json of a small model in the form of the released one
SMALL = dict(
    pad_token_id=0, bos_token_id=1, eos_token_id=2, vocab_size=53, init_std=0.02,
    decoder_embed_dim=24, decoder_layers=3, decoder_attention_heads=3, hidden_dim=24, glu_dim=40,
    no_scale_embedding=False, norm_type="simplermsnorm", linear_use_lrpe_list=[1, 0, 0],
    linear_act_fun="silu", bias=False, model_type="transnormer", tie_word_embeddings=True,
)  # fmt: skip
UNSCALED = dict(no_scale_embedding=True)
FORMS = {
    "TransNormerLLM-385M": dict(),
    "TransNormerLLM-1B": dict(decoder_layers=2, linear_use_lrpe_list=[1, 0], decoder_embed_dim=16,
                              hidden_dim=16, decoder_attention_heads=4, glu_dim=24),
    "TransNormerLLM-7B": UNSCALED,
    "TransNormerLLM-7B-GPTQ": UNSCALED,
    "TransNormerLLM2-1B-300B": UNSCALED,
    "TransNormerLLM2-3B-300B": UNSCALED | dict(decoder_embed_dim=40, hidden_dim=40,
                                               decoder_attention_heads=5),
    "TransNormerLLM2-7B-300B": UNSCALED | dict(linear_act_fun="swish"),
    "TransNormerLLM3-15B-Intermediate-Checkpoints": dict(
        decoder_embed_dim=40, hidden_dim=40, decoder_attention_heads=10, vocab_size=61),
}  # fmt: skip
RANK = 16


def config_of(form: str) -> dict:
    return SMALL | FORMS[form]


def random_tensors(form: str, config: dict | None = None) -> dict[str, torch.Tensor]:
    """Weights by their names in the released files; so large that all of them matter."""
    config = config or config_of(form)
    d, hidden, glu = config["decoder_embed_dim"], config["hidden_dim"], config["glu_dim"]
    glu = d if glu == -1 else glu
    heads = config["decoder_attention_heads"]
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], d)}
    thin = "LLM3" in form
    for i in range(config["decoder_layers"]):
        layer = f"model.layers.{i}."
        shapes[layer + "token_mixer.qkvu_proj.weight"] = ((3 if thin else 4) * hidden, d)
        if thin:  # names that nobody has seen
            shapes[layer + "token_mixer.gate_a.weight"] = (RANK, d)
            shapes[layer + "token_mixer.gate_b.weight"] = (hidden, RANK)
        if config["linear_use_lrpe_list"][i]:
            shapes[layer + "token_mixer.lrpe.theta"] = (heads, 1, hidden // heads)
        shapes[layer + "token_mixer.out_proj.weight"] = (d, hidden)
        shapes[layer + "channel_mixer.l1.weight"] = (glu, d)
        shapes[layer + "channel_mixer.l2.weight"] = (glu, d)
        shapes[layer + "channel_mixer.l3.weight"] = (d, glu)
    draw = torch.Generator().manual_seed(len(form))
    return {name: 0.3 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}


def write_folder(folder, form: str, tensors: dict, config: dict | None = None) -> None:
    """As released: in one .bin, in shards with an index, or in safetensors."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config or config_of(form)))
    if "GPTQ" in form:
        save_file(tensors, folder / "gptq_model-4bit-8g.safetensors", metadata={"format": "pt"})
    elif "7B" in form:
        names = list(tensors)
        halves = {"pytorch_model-00001-of-00002.bin": names[:9],
                  "pytorch_model-00002-of-00002.bin": names[9:]}  # fmt: skip
        for shard, part in halves.items():
            torch.save({name: tensors[name] for name in part}, folder / shard)
        where = {name: shard for shard, part in halves.items() for name in part}
        index = {"metadata": {"total_size": 0}, "weight_map": where}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    elif "3B" in form:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        head = {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
        torch.save(tensors | head, folder / "pytorch_model.bin")


# ------------------------------------------------------------------- the model, from the facts page


def slopes(heads: int) -> list[float]:
    power = 2 ** math.floor(math.log2(heads))
    first = [2 ** (-8 * (i + 1) / power) for i in range(power)]
    finer = [2 ** (-8 * (i + 1) / (2 * power)) for i in range(2 * power)]
    return first + finer[0::2][: heads - power]


def normed(x):
    return x / torch.sqrt((x**2).mean() + 1e-6)


def silu(x):
    return x / (1 + torch.exp(-x))


def elu(x):
    return torch.where(x > 0, x, torch.exp(x) - 1)


ACTIVATIONS = {  # of the features of one head
    "silu": silu,
    "swish": silu,
    "relu": lambda x: torch.where(x > 0, x, 0.0),
    "gelu": lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2,
    "elu": elu,
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
    "exp": lambda x: torch.exp(x - x.max()),
    "leak": lambda x: torch.where(x > 0, x, 0.01 * x),
    "1+elu": lambda x: 1 + elu(x),
    "2+elu": lambda x: 2 + elu(x),
    "sine": torch.sin,
    "none": lambda x: x,
}


def token_mixer(xs, weights, layer: int, config: dict):
    """xs: one vector per token, already normed. The gate is full, or of two thin matrices."""
    hidden, heads = config["hidden_dim"], config["decoder_attention_heads"]
    width, name = hidden // heads, f"model.layers.{layer}.token_mixer."
    theta = weights.get(name + "lrpe.theta")
    depth = 1 - layer / max(config["decoder_layers"] - 1, 1) + 1e-5
    activation = ACTIVATIONS[config["linear_act_fun"]]
    states = [0.0] * heads
    out = []
    for t, x in enumerate(xs):
        row = weights[name + "qkvu_proj.weight"] @ x
        q, k, v = row[:hidden], row[hidden : 2 * hidden], row[2 * hidden : 3 * hidden]
        if name + "gate_a.weight" in weights:
            u = weights[name + "gate_b.weight"] @ (weights[name + "gate_a.weight"] @ x)
        else:
            u = row[3 * hidden :]
        joined = []
        for h in range(heads):
            own = slice(h * width, (h + 1) * width)
            q_h, k_h, v_h = activation(q[own]), activation(k[own]), v[own]
            if theta is not None:
                angle = theta[h, 0] * t
                q_h, k_h = (
                    torch.cat([y * torch.cos(angle), y * torch.sin(angle)]) for y in (q_h, k_h)
                )
            states[h] = math.exp(-slopes(heads)[h] * depth) * states[h] + torch.outer(k_h, v_h)
            joined.append(q_h @ states[h])
        out.append(weights[name + "out_proj.weight"] @ (u * normed(torch.cat(joined))))
    return out


def channel_mixer(x, weights, layer: int):
    name = f"model.layers.{layer}.channel_mixer."
    inner = (weights[name + "l1.weight"] @ x) * (weights[name + "l2.weight"] @ x)
    return weights[name + "l3.weight"] @ inner


def forward(tensors: dict, config: dict, ids: list[int], parallel: bool = False) -> torch.Tensor:
    """Logits (n, V) of one text, in float64."""
    weights = {name: tensor.double() for name, tensor in tensors.items()}
    embedding = weights["model.embed_tokens.weight"]
    scale = 1.0 if config["no_scale_embedding"] else math.sqrt(config["decoder_embed_dim"])
    xs = [scale * embedding[i] for i in ids]
    for layer in range(config["decoder_layers"]):
        mixed = token_mixer([normed(x) for x in xs], weights, layer, config)
        if parallel:
            read = xs
            xs = [x + m for x, m in zip(xs, mixed, strict=True)]
        else:
            read = xs = [x + m for x, m in zip(xs, mixed, strict=True)]
        xs = [x + channel_mixer(normed(r), weights, layer) for x, r in zip(xs, read, strict=True)]
    return torch.stack([embedding @ normed(x) for x in xs])
