"""Associative recall: pairs of a key and a value are read, then each key is asked for once.

    position   0 .. n-1          n .. 2n-1
    key        k_1 .. k_n        the same keys in another order
    value      v_1 .. v_n        "?" everywhere; the model has to name the value

The task is MQAR (multi-query associative recall, arXiv 2312.04927) with one simplification: a pair
stands in one position instead of two. So nothing has to be joined before it can be kept, which
takes most of the training there, and what is measured is the memory alone.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from transnormer_edu import check
from transnormer_edu.norm import SRMSNorm

KEYS, VALUES = 64, 32  # how many there are to draw from
ASK = VALUES  # the value "?"


class Pairs(NamedTuple):
    """Texts of n pairs and n questions.

    key, value   what stands at each position; `ASK` where a value is asked for
    answer       the values asked for, in the order of the questions
    age          how many positions ago the pair of each question was read, 1 .. 2n-1
    """

    key: Int[Tensor, "b m"]
    value: Int[Tensor, "b m"]
    answer: Int[Tensor, "b n"]
    age: Int[Tensor, "b n"]


def draw_pairs(batch: int, pairs: int, generator: torch.Generator) -> Pairs:
    """`batch` texts by chance: `pairs` different keys of 64, each with one value of 32.

    Raises ValueError for no text, no pair, or more pairs than there are keys.
    """
    check.whole("batch", batch)
    if check.whole("pairs", pairs) > KEYS:
        raise ValueError(f"pairs is {pairs}, expected at most {KEYS}: each key is used once")
    key = torch.rand(batch, KEYS, generator=generator).argsort(dim=1)[:, :pairs]
    value = torch.randint(VALUES, (batch, pairs), generator=generator)
    asked = torch.rand(batch, pairs, generator=generator).argsort(dim=1)
    return Pairs(
        torch.cat([key, key.gather(1, asked)], dim=1),
        torch.cat([value, torch.full_like(value, ASK)], dim=1),
        value.gather(1, asked),
        torch.arange(pairs, 2 * pairs) - asked,
    )


class RecallModel(nn.Module):
    """x = E[key] + F[value], then the blocks, a norm, and a logit for each value.

    blocks   modules of this package that mix tokens: `layers.Block`, `transformer.TransformerBlock`
    dim      d, their width
    """

    def __init__(self, blocks: Iterable[nn.Module], dim: int):
        super().__init__()
        self.key = nn.Embedding(KEYS, dim)
        self.value = nn.Embedding(VALUES + 1, dim)
        self.blocks = nn.ModuleList(blocks)
        self.norm = SRMSNorm(dim)
        self.head = nn.Linear(dim, VALUES, bias=False)

    def forward(
        self, key: Int[Tensor, "b m"], value: Int[Tensor, "b m"]
    ) -> Float[Tensor, "b m values"]:
        """The logits at every position."""
        x = self.key(key) + self.value(value)
        position = torch.arange(key.shape[1], device=key.device)
        for block in self.blocks:
            x, _ = block(x, position)
        return self.head(self.norm(x))

    def asked(self, pairs: Pairs) -> Float[Tensor, "b n values"]:
        """The logits at the questions alone."""
        return self(pairs.key, pairs.value)[:, pairs.answer.shape[1] :]


def learn(
    model: RecallModel,
    steps: int,
    *,
    seed: int,
    learning_rate: float = 0.02,
    batch: int = 64,
    most_pairs: int = 32,
) -> Iterator[float]:
    """Train, one step for each turn of the loop; yields the loss (nats per question).

    A step sees `batch` texts, all of one number of pairs, drawn from 2 to `most_pairs`. AdamW
    without weight decay, gradients clipped at 1, the rate as lesson 11 explains it: a warm-up of
    20 steps, then half a cosine.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0, fused=True)
    up = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / 20, total_iters=20)
    down = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps - 20, 1))
    plan = torch.optim.lr_scheduler.SequentialLR(optimizer, [up, down], milestones=[20])
    for _ in range(steps):
        n = int(torch.randint(2, most_pairs + 1, (1,), generator=generator))
        pairs = draw_pairs(batch, n, generator)
        loss = F.cross_entropy(model.asked(pairs).flatten(0, 1), pairs.answer.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        plan.step()
        yield loss.item()


@torch.no_grad()
def right(model: RecallModel, pairs: Pairs) -> Bool[Tensor, "b n"]:
    """Which questions are answered with the right value; the mean is the recall."""
    return model.asked(pairs).argmax(dim=-1) == pairs.answer
