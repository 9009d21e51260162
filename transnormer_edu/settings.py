"""What one training run differs in from another, and what it may not be."""

import math
from dataclasses import dataclass, fields

import torch

from transnormer_edu import check

PRECISIONS = ("auto", "fp32", "bf16")


@dataclass(frozen=True)
class TrainSettings:
    """Settings of a training run; they and the seed decide every loss (on one machine).

        steps              updates of the weights
        batch_size         windows in one forward pass
        context            tokens in a window
        accumulate         forward passes whose gradients are added up to one update
        learning_rate      at its highest, after `warmup` steps
        final_rate         at the last step, as a share of the highest
        warmup             steps over which the learning rate rises from 0
        weight_decay       of the matrices inside the layers; embedding and angles do not decay
        beta1, beta2       AdamW's memory of gradients and of their squares
        clip               the largest norm a gradient may keep; 0: no clipping
        eval_every         steps between two looks at the held-out text; 0: only after the last step
        eval_windows       held-out windows in such a look; None: all (as always after the last)
        save_every         steps between two checkpoints; 0: only after the last step
        seed               of the data order, and of the weights where the project makes them
        precision          "fp32"; "bf16": autocast; "auto": bf16 on a GPU that has it, else fp32
        device             "cpu", "cuda", "mps", or "auto": a GPU where there is one

    Raises ValueError, in one sentence, for a setting that cannot work.
    """

    steps: int = 400
    batch_size: int = 8
    context: int = 256
    accumulate: int = 1
    learning_rate: float = 4e-3
    final_rate: float = 0.05
    warmup: int = 40
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0
    eval_every: int = 100
    eval_windows: int | None = 64
    save_every: int = 100
    seed: int = 0
    precision: str = "auto"
    device: str = "auto"

    def __post_init__(self):
        for name, least in LEAST.items():
            value = getattr(self, name)
            if name == "eval_windows" and value is None:
                continue
            if not check.is_whole(value, least):
                raise ValueError(f"{name} is {value!r}, expected a whole number of {least} or more")
            object.__setattr__(self, name, int(value))  # NumPy's do not go into a JSON file
        for name, (low, high) in BETWEEN.items():
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not low <= value <= high:  # NaN is never between
                raise ValueError(f"{name} is {value!r}, expected a number from {low:g} to {high:g}")
        if self.seed >= 2**32:
            raise ValueError(f"seed is {self.seed}, expected less than {2**32}")
        if self.learning_rate == 0:
            raise ValueError("learning_rate is 0, expected more: nothing would be learned")
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision is {self.precision!r}, expected one of {', '.join(PRECISIONS)}"
            )
        self.torch_device()

    @property
    def tokens_per_step(self) -> int:
        """Tokens read for one update: accumulate x batch_size x context."""
        return self.accumulate * self.batch_size * self.context

    def rate_at(self, step: int) -> float:
        """The learning rate of update number `step`, 1 .. steps: warm-up, then half a cosine.

        step <= warmup:  peak * step / warmup
        after that:      from peak down to final_rate * peak at the last step
        """
        if step <= self.warmup:
            return self.learning_rate * step / self.warmup
        done = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        cosine = (1 + math.cos(math.pi * done)) / 2
        return self.learning_rate * (self.final_rate + (1 - self.final_rate) * cosine)

    def torch_device(self) -> torch.device:
        """The device that `device` means here. ValueError where torch finds no such device."""
        found = (
            torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        )
        if self.device == "auto":
            return torch.device(found or "cpu")
        try:
            device = torch.device(self.device)
        except (RuntimeError, TypeError):
            device = None
        usable = ["cpu", *([found.type] if found else [])]
        if device is None or device.type not in usable:
            raise ValueError(
                f"device is {self.device!r}, expected auto or {' or '.join(usable)}: torch "
                f"finds no other on this machine"
            )
        return device

    def uses_bf16(self) -> bool:
        """Whether forward passes run under bfloat16 autocast.

        Not on a CPU unless asked for: there the casts cost what the products save, or more.
        """
        cuda = self.torch_device().type == "cuda"
        return self.precision == "bf16" or (
            self.precision == "auto" and cuda and torch.cuda.is_bf16_supported()
        )

    @classmethod
    def from_dict(cls, given: dict) -> "TrainSettings":
        """Inverse of dataclasses.asdict. ValueError for a name that is no setting."""
        check.kind("settings", given, dict)
        unknown = sorted(given.keys() - {field.name for field in fields(cls)})
        if unknown:
            names = ", ".join(field.name for field in fields(cls))
            raise ValueError(f"there is no setting {unknown[0]!r}, expected one of {names}")
        return cls(**given)


LEAST = {
    "steps": 1, "batch_size": 1, "context": 2, "accumulate": 1, "warmup": 0, "eval_every": 0,
    "eval_windows": 1, "save_every": 0, "seed": 0,
}  # fmt: skip
BETWEEN = {
    "learning_rate": (0, 1), "final_rate": (0, 1), "weight_decay": (0, 1), "beta1": (0, 0.9999),
    "beta2": (0, 0.999999), "clip": (0, 1e9),
}  # fmt: skip
