"""Data for the pictures that move in the book without a kernel: small, made while it is built.

Every number and every sentence comes from the functions that the lessons use; the scripts in
docs/moving only draw. A map's shares p are sent as bytes, round(255 sqrt(p)): the root, since small
shares have to be seen; rows one after another, without the future.
"""

import base64
import json
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from transnormer_edu.attention import linear_attention
from transnormer_edu.decay import decay_mask
from transnormer_edu.dilution import attention_maps, attention_mass
from transnormer_edu.plots import blocks, decay
from transnormer_edu.plots.dilution import SHARES, mean_mass
from transnormer_edu.plots.explorer import MapFigure, shown
from transnormer_edu.train import load_trained
from transnormer_edu.weights import small_model_folder

MODELS = {
    "softmax": "softmax",
    "linear, no decay": "linear",
    "TransNormerLLM": "transnormerllm",
}
TEXTS = (
    "The list is empty if the file is empty, and the file is closed.",
    "The function returns a list of strings. Each string is one line of the file, without the "
    "newline at its end. If the file does not exist, an error is raised.",
)
MOST = 40  # tokens of a text


def decay_data(tokens: int = 32) -> dict:
    """For each rate its sentence and local mass; the mask exp(-r (t-s)) is drawn in the page."""
    steps = (1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
    rates = [0, *(round(0.01 * 10**e * step, 4) for e in range(2) for step in steps), 1, 1.5, 2]
    _, move = decay.mask_mover(tokens)
    positions = []
    for rate in rates:
        mask = decay_mask(torch.tensor([float(rate)]), tokens)[0]
        positions.append({"rate": rate, "mass": _curve(mask), "sentence": move(rate)})
    return {"tokens": tokens, "start": rates.index(0.1), "positions": positions}


def explorer_data() -> dict:
    """For each text, model, layer and head the map of the trained model, its mass and sentence."""
    models = {}
    for name, kind in MODELS.items():
        models[name], tokenizer = load_trained(small_model_folder(kind))
    texts = []
    for text in TEXTS:
        ids = [tokenizer.bos_id, *tokenizer.encode(text)][:MOST]
        tokens = [shown(tokenizer.decode([i]) or "<s>") for i in ids]
        maps = {
            name: [
                list(map(_map, layer[0])) for layer in attention_maps(model, torch.tensor([ids]))
            ]
            for name, model in models.items()
        }
        texts.append({"text": text, "tokens": tokens, "maps": maps})
    return {"texts": texts}


def tiles_data(size: int = 3) -> dict:
    """Lesson 07's chunks over a small text: each moment's chunk, state and sentence."""
    text, rate = "abracadabra", -torch.tensor([0.9]).log()
    letters, n = sorted(set(text)), len(text)
    v = F.one_hot(torch.tensor([letters.index(c) for c in text]), len(letters)).float()
    k = torch.cat([torch.zeros(1, len(letters)), v[:-1]])  # the letter before
    ends = [*range(size, n, size), n]
    states = torch.stack([_state(k[:end], v[:end], rate) for end in ends])
    _, move = blocks.block_mover(states, n, size, letters)
    moments = [
        {"chunk": i // 3, "moment": i % 3, "sentence": move(i + 1)} for i in range(3 * len(ends))
    ]
    held = torch.cat([torch.zeros_like(states[:1]), states]).round(decimals=3).tolist()
    return {"text": text, "size": size, "names": letters, "states": held, "moments": moments}


class Picture(NamedTuple):
    """The script in docs/moving and what makes its data."""

    name: str
    data: Callable[[], dict]
    stands: str  # how the words begin that a notebook has in the place of its widget


PICTURES = {
    "03_attention_dilution": Picture("explorer", explorer_data, "An explorer"),
    "04_decay": Picture("decay", decay_data, "A slider"),
    "07_tiles": Picture("tiles", tiles_data, "A slider"),
}


def data_files(lessons: set[str]) -> dict[str, str]:
    """NAME-data.js -> its text, for these lessons' pictures. Scripts, since a page that is read
    from the disk may load nothing else."""
    return {
        f"{name}-data.js": f"moving.data({json.dumps(name)}, {_packed(data())});\n"
        for name, data, _ in (PICTURES[lesson] for lesson in sorted(lessons & set(PICTURES)))
    }


def _packed(data: dict) -> str:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False)


def moving_picture(name: str, top: str) -> str:
    """The place of a picture in a page; `top` leads to the website's first folder."""
    scripts = "".join(
        f'<script defer src="{top}/moving/{file}.js"></script>'
        for file in ("moving", name, f"{name}-data")
    )
    return (
        f'<div class="moving" data-picture="{name}"><p class="away">A picture that moves stands '
        "here where scripts are allowed; the figures above are complete without it.</p></div>"
        f'{scripts}<link rel="stylesheet" href="{top}/moving/moving.css">'
    )


def _map(weights: Float[Tensor, "n n"]) -> dict:
    mass = attention_mass(weights)
    past = torch.ones_like(mass, dtype=torch.bool).tril()
    shades = (255 * mass[past].sqrt()).round().to(torch.uint8)
    return {
        "map": base64.b64encode(bytes(shades.tolist())).decode(),
        "mass": _curve(weights),
        "sentence": _SENTENCES.draw(weights, ["x"] * len(weights)),
    }


_SENTENCES = MapFigure()


def _curve(weights: Float[Tensor, "n n"]) -> list[float]:
    """Local mass in percent, at the nearest 0, 2.5, ..., 100 % of the tokens."""
    mass = mean_mass(weights)
    assert len(mass) == len(SHARES)
    return [round(float(percent), 1) for percent in mass]


def _state(k: Float[Tensor, "n d"], v: Float[Tensor, "n d"], rate: Float[Tensor, "1"]) -> Tensor:
    q, k, v = (x[None, None] for x in (k, k, v))
    return linear_attention(q, k, v, rate, return_state=True)[1][0, 0]
