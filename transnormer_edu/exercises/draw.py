"""Seeded inputs for the checks: sizes that are pairwise different, and no identity values."""

import random

import torch
from torch import Tensor


class Draw:
    """Everything that a check draws comes from here: the same seed, the same check."""

    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)

    def sizes(self, *names: str, least: int = 2) -> dict[str, int]:
        """A size for each name, all different; `n`, the tokens, is the largest and odd."""
        small = [name for name in names if name != "n"]
        pool = range(least, least + max(6, len(small)))
        sizes = dict(zip(small, self.random.sample(pool, len(small)), strict=True))
        sizes["n"] = self.random.choice((11, 13, 17))
        return {name: sizes[name] for name in names}

    def normal(self, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64).to(dtype)

    def uniform(self, *shape: int, low: float, high: float, dtype=torch.float64) -> Tensor:
        share = torch.rand(*shape, generator=self.generator, dtype=torch.float64)
        return (low + (high - low) * share).to(dtype)

    def rates(self, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """Decay rates, all different, none 0: half-lives of about 1 to 14 tokens."""
        return self.uniform(*shape, low=0.05, high=0.8, dtype=dtype)


def scattered(x: Tensor) -> Tensor:
    """The same numbers, laid out in memory in another order: `x.view` fails, `reshape` works."""
    backwards = list(range(x.ndim))[::-1]
    return x.permute(backwards).contiguous().permute(backwards)
