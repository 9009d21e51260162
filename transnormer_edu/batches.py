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
        self._number, self._epoch = -1, row.new_empty(0, context)

    def __getitem__(self, i: int) -> Integer[Tensor, "b n"]:
        """Windows i * b .. i * b + b - 1 of all epochs, one after the other."""
        epoch, first = divmod(i * self.batch_size, self.windows)
        batch = self._shuffled(epoch)[first : first + self.batch_size]
        missing = self.batch_size - len(batch)
        if missing == 0:
            return batch
        return torch.cat([batch, self._shuffled(epoch + 1)[:missing]])

    def _shuffled(self, epoch: int) -> Integer[Tensor, "w n"]:
        if self._number != epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            ring = self.row.roll(int(torch.randint(len(self.row), (), generator=generator)))
            windows = ring[: self.windows * self.context].view(self.windows, self.context)
            self._epoch = windows[torch.randperm(self.windows, generator=generator)]
            self._number = epoch
        return self._epoch
