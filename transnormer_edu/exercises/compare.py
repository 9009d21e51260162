"""Compare what came back with what should have: the first wrong place, in words."""

import math
from collections.abc import Mapping
from numbers import Real
from types import MappingProxyType

import torch
from torch import Tensor

from transnormer_edu.exercises.observe import Outcome, Refused, flat

# Allowed relative error, and absolute error as a share of the largest number.
TOLERANCE = MappingProxyType(
    {
        torch.float64: (1e-8, 1e-11),
        torch.float32: (1e-3, 1e-5),
        torch.float16: (5e-3, 2e-3),
        torch.bfloat16: (3e-2, 1e-2),
    }
)
# Where large numbers cancel, a gradient is what rounding leaves of them.
GRADIENT_NOISE = MappingProxyType({torch.float64: 1e-11, torch.float32: 1e-4})


def difference(got, want, returns: Mapping[str, str]) -> str | None:
    """The first thing that is wrong with a returned value, or None."""
    if got is None:
        return "it returned None: is a `return` missing?"
    if len(returns) == 1:
        ((name, axes),) = returns.items()
        return _one(name, got, want, axes)
    if not isinstance(got, tuple | list) or len(got) != len(returns):
        what = f"{len(got)} parts" if isinstance(got, tuple | list) else f"a {kind(got)}"
        return f"it returned {what}, expected the {len(returns)} parts {', '.join(returns)}"
    parts = zip(returns.items(), got, want, strict=True)
    found = (_one(name, part, right, axes) for (name, axes), part, right in parts)
    return next((sentence for sentence in found if sentence), None)


def _one(name: str, got, want, axes: str, floor: float = 0) -> str | None:
    if not isinstance(want, Tensor):
        return _number(name, got, want)
    if not isinstance(got, Tensor):
        return f"{name} is a {kind(got)}, expected a tensor [{axes}]".replace(" []", "")
    if got.shape != want.shape:
        meaning = f" = [{axes}]" if axes else ""
        return f"{name} has the shape {tuple(got.shape)}, expected {tuple(want.shape)}{meaning}"
    if got.dtype != want.dtype:
        return f"{name} is {got.dtype}, expected {want.dtype}: the type of the inputs"
    wrong = ~close(got, want, floor=floor)
    if not wrong.any():
        return None
    place = wrong.nonzero()[0].tolist()
    where = ", ".join(f"{axis} {i}" for axis, i in zip(axes.split(), place, strict=False))
    found, right = (f"{x[tuple(place)].item():.6g}" for x in (got, want))
    if found == right:
        found, right = (f"{x[tuple(place)].item():.16g}" for x in (got, want))
    how_many = f"{int(wrong.sum())} of {wrong.numel()} numbers are wrong"
    return f"{name} at {where or tuple(place)} is {found}, expected {right}; {how_many}"


def _number(name: str, got, want) -> str | None:
    got = plain(got)
    if type(got) not in (bool, int, float) or isinstance(got, bool) != isinstance(want, bool):
        return f"{name} is a {kind(got)}, expected a {kind(want)}"
    if got == want or (isinstance(want, float) and _near(got, want)):
        return None
    got, want = (str(x) if isinstance(x, bool) else f"{x:.10g}" for x in (got, want))
    return f"{name} is {got}, expected {want}"


def _near(got: float, want: float) -> bool:
    return math.isfinite(want) and abs(got - want) <= 1e-8 * abs(want)


def close(
    got: Tensor, want: Tensor, tolerance: tuple[float, float] | None = None, floor: float = 0
) -> Tensor:
    """Where two tensors of one shape agree; NaN agrees with NaN, infinity with itself.

    `floor` is an error that is always allowed.
    """
    if not want.is_floating_point():
        return got == want
    relative, share = tolerance or TOLERANCE[want.dtype]
    got, want = got.double(), want.double()
    # Where all should be 0, rounding may leave a little of numbers near 1.
    largest = max([1e-2, *want[want.isfinite()].abs().flatten().tolist()])
    near = (got - want).abs() <= relative * want.abs() + share * largest + floor
    near &= want.isfinite()  # beside an infinite tolerance everything is near
    return near | (got == want) | (got.isnan() & want.isnan())


def gradient_difference(got: Outcome, want: Outcome) -> str | None:
    """The first input whose gradient is wrong, or None. No gradient is a gradient of zeros."""
    for name, right in want.gradients.items():
        found = got.gradients.get(name)
        if found is None:
            if right is None or not bool(right.any()):
                continue
            return (
                f"the values are right, but no gradient reaches {name}: "
                "was .detach(), .item(), torch.tensor(...) or torch.no_grad() used?"
            )
        right = torch.zeros_like(found) if right is None else right
        wrong = _one(f"the gradient of {name}", found, right, "", GRADIENT_NOISE[right.dtype])
        if wrong:
            return "the values are right, but " + wrong
    return None


def same_values(a: Outcome, b: Outcome) -> bool:
    """Whether two functions returned or raised the same in one case, right or wrong."""
    ours, theirs = flat(a.value), flat(b.value)
    same_way = type(a.error) is type(b.error) and a.changed == b.changed
    if isinstance(a.error, Refused) and str(a.error) != str(b.error):
        return False
    return same_way and len(ours) == len(theirs) and all(map(_alike, ours, theirs))


def same_outcome(a: Outcome, b: Outcome) -> bool:
    """Whether also the gradients and the side effects are the same."""
    return (
        same_values(a, b)
        and a.overwritten == b.overwritten
        and type(a.gradient_error) is type(b.gradient_error)
        and a.gradients.keys() == b.gradients.keys()
        and all(_same_gradient(a.gradients[name], b.gradients[name]) for name in a.gradients)
    )


def _same_gradient(a: Tensor | None, b: Tensor | None) -> bool:
    """No gradient is a gradient of zeros."""
    if a is None or b is None:
        return all(x is None or not bool(x.any()) for x in (a, b))
    return _alike(a, b)


def _alike(a, b) -> bool:
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        a, b = plain(a), plain(b)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and bool(close(a, b).all())
    if isinstance(a, Real) and isinstance(b, Real):
        return _near(a, b) or a == b
    return type(a) is type(b)


def plain(value):
    """A tensor or NumPy array without axes, and a NumPy number, as Python's own number."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def kind(value) -> str:
    return {"NoneType": "None", "builtin_function_or_method": "function"}.get(
        type(value).__name__, type(value).__name__
    )
