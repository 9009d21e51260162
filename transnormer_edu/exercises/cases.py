"""The inputs that many exercises share: q, k, v in all the shapes that find mistakes."""

from collections.abc import Callable, Iterator

import torch

from transnormer_edu.exercises.draw import Draw, scattered
from transnormer_edu.exercises.exercise import Case

# What is changed in the drawn sizes, and how one says it.
SHAPES = (
    ("", {}),
    ("other numbers of the same sizes", {}),
    ("a single token", {"n": 1}),
    ("one text, one head", {"b": 1, "h": 1}),
    ("one head", {"h": 1}),
    ("one text", {"b": 1}),
    ("keys and values of one number", {"dk": 1, "dv": 1}),
    ("a single feature", {"d": 1}),
)


def in_words(special: str, sizes: dict[str, int]) -> str:
    """'With a single token (b=2, h=3, n=1)'."""
    said = ", ".join(f"{name}={size}" for name, size in sizes.items())
    return f"With {special} ({said})" if special else f"With {said}"


def operands(draw: Draw, b: int, h: int, n: int, dk: int, dv: int) -> dict:
    """q, k (b, h, n, dk) and v (b, h, n, dv), normal, in float64."""
    return {
        "q": draw.normal(b, h, n, dk),
        "k": draw.normal(b, h, n, dk),
        "v": draw.normal(b, h, n, dv),
    }


def in_all_shapes(
    draw: Draw, make: Callable[[Draw, dict], dict], *names: str, float32: bool = True
) -> Iterator[Case]:
    """`make(draw, sizes)` in the SHAPES that concern `names`; scattered in memory; in float32."""
    sizes = draw.sizes(*names)
    for special, change in SHAPES:
        if set(change) <= set(names):
            here = sizes | change
            yield Case(in_words(special, here), make(draw, here))
    elsewhere = {name: every_tensor(x, scattered) for name, x in make(draw, sizes).items()}
    yield Case(in_words("tensors that are not contiguous in memory", sizes), elsewhere)
    if float32:
        narrow = {name: every_tensor(x, to_float32) for name, x in make(draw, sizes).items()}
        yield Case(in_words("inputs in float32", sizes), narrow)


# Much longer than a chunk; no product of the others is as long.
LONG = {"b": 1, "h": 2, "n": 41, "dk": 3, "dv": 4}


def without_a_map(inputs: dict) -> Case:
    """A text of LONG sizes that has to do without a map of n x n numbers."""
    return Case(in_words("a long text and no map of all of it", LONG), inputs, LONG["n"])


def some_do_not_decay(rate: torch.Tensor) -> torch.Tensor:
    """The rates with 0 for the first head."""
    return torch.cat([torch.zeros_like(rate[:1]), rate[1:]])


def with_zeros(x: torch.Tensor) -> torch.Tensor:
    """Rows (n, d) with one feature of the first, and all of the second, at 0."""
    x = x.clone()
    x[0, 2], x[1] = 0, 0
    return x


def every_tensor(value, change: Callable):
    """`change` applied to a tensor, or to each in a tuple; all else as it is."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, tuple):
        return tuple(every_tensor(part, change) for part in value)
    return value


def to_float32(x: torch.Tensor) -> torch.Tensor:
    return x.float() if x.is_floating_point() else x
