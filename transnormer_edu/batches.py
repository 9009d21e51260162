"""What is read at which step: a function of the step's number and the seed, and of nothing else.

A run that goes on after a crash then needs no memory of where in the text it was, and two models
with the same seed read the same text in the same order.
"""

import torch
from jaxtyping import Integer
from torch import Tensor


class Batches:
    """Batch number i of a row of tokens, for any i, with nothing to remember between them.

    An epoch turns the row like a ring by a random amount, cuts it into windows of `context` tokens
    and reads each of them once, in random order. Both are drawn from the seed and the number of the
    epoch. (Without the turn, the same tokens would stand at the start of a window for ever.)
    The row is only looked into, so it may be a mapped file larger than the memory.
    """

    def __init__(self, row: Integer[Tensor, "n"], context: int, batch_size: int, seed: int):
        if len(row) < batch_size * context:
            raise ValueError(
                f"The training part has {len(row)} tokens and one batch needs {batch_size} x "
                f"{context} = {batch_size * context}: give a longer text, or lower batch_size or "
                f"context."
            )
        self.row, self.context, self.batch_size, self.seed = row, context, batch_size, seed
        self.windows = len(row) // context
        self._drawn = (-1, 0, torch.empty(0))  # epoch, its turn, its order

    def __getitem__(self, i: int) -> Integer[Tensor, "b n"]:
        """Windows i * b .. i * b + b - 1 of all epochs, one after the other."""
        first = i * self.batch_size
        starts = torch.tensor([self._start(first + j) for j in range(self.batch_size)])
        places = (starts[:, None] + torch.arange(self.context)) % len(self.row)
        return self.row[places.to(self.row.device)]

    def _start(self, number: int) -> int:
        """Where in the row window `number` of all epochs begins."""
        epoch, place = divmod(number, self.windows)
        turn, order = self._draw(epoch)
        return (int(order[place]) * self.context - turn) % len(self.row)

    def _draw(self, epoch: int) -> tuple[int, Tensor]:
        """How far the ring is turned in this epoch, and the order of its windows."""
        if self._drawn[0] != epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            turn = int(torch.randint(len(self.row), (), generator=generator))
            self._drawn = (epoch, turn, torch.randperm(self.windows, generator=generator))
        return self._drawn[1:]
