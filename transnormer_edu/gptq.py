"""Weights of 4 bits in AutoGPTQ's format: what is stored, and the layer that computes with it.

A weight w[i, o] (from input i to output o) is one of 16 levels. Inputs share a scale and a zero in
groups; with z the level that means 0:

    w[i, o] = scale[g, o] * (level[i, o] - z[g, o])        g = g_idx[i], usually i // group_size

    qweight   (in / 8, out)         int32    eight levels of neighbouring inputs, the first lowest
    qzeros    (groups, out / 8)     int32    eight of z - 1 of neighbouring outputs, likewise
    scales    (groups, out)         float
    g_idx     (in,)                 int32    the group of each input

The same with 2 or 8 bits, sixteen or four to an int32. (z - 1 is stored, and every reader adds 1.
Of a stored 15 some make 16 and some 0: here it is 16, as for most, and it is never written.)

On a GPU a kernel unpacks the levels while it multiplies; elsewhere the weights are made in full.
"""

from dataclasses import dataclass
from operator import is_not
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from transnormer_edu import check
from transnormer_edu.lightning import few_bit_product, few_bit_product_serves

BITS = (2, 4, 8)  # what divides an int32 evenly
METHOD = "gptq"


@dataclass(frozen=True)
class GPTQFormat:
    """How weights are quantised.

    bits         2, 4 or 8
    group_size   inputs that share a scale; -1: all of them
    desc_act     groups were formed in the order of importance, so g_idx is not i // group_size
    """

    bits: int = 4
    group_size: int = 128
    desc_act: bool = False

    def __post_init__(self):
        if self.bits not in BITS or isinstance(self.bits, bool):
            raise ValueError(f"bits is {self.bits!r}, expected one of 2, 4, 8")
        if self.group_size != -1:
            check.whole("group_size", self.group_size)
        for name in ("bits", "group_size"):  # only Python's own numbers go into a JSON file
            object.__setattr__(self, name, int(getattr(self, name)))
        if not isinstance(self.desc_act, bool):
            raise ValueError(f"desc_act is {self.desc_act!r}, expected True or False")

    def groups(self, in_features: int) -> int:
        """How many groups so many inputs make; the last one may be smaller."""
        return 1 if self.group_size == -1 else -(-in_features // self.group_size)


class Levels(NamedTuple):
    """Levels as the kernel reads them: row i belongs to input order[i], or to i without an order;
    `group` is that of each int32 of a column."""

    qweight: Int[Tensor, "w o"]
    group: Int[Tensor, "w"]
    order: Int[Tensor, "i"] | None


class QuantLinear(nn.Module):
    """y = x W with W in 4 bits (see above); W is made anew in every call and not kept.

    On a GPU it is not made at all, but for x that needs a gradient, float64, thousands of rows, and
    groups so small that one int32 holds levels of two. With desc_act the kernel reads a second copy
    of the levels, sorted by group.
    Errors: ValueError for sizes that do not fill whole int32 numbers.
    """

    def __init__(self, in_features: int, out_features: int, form: GPTQFormat):
        super().__init__()
        each = 32 // form.bits
        if in_features % each or out_features % each:
            raise ValueError(
                f"a layer of {in_features} inputs and {out_features} outputs cannot be stored in "
                f"{form.bits} bits; expected multiples of {each}"
            )
        self.in_features, self.out_features, self.form = in_features, out_features, form
        groups = form.groups(in_features)
        shapes = {"qweight": (in_features // each, out_features),
                  "qzeros": (groups, out_features // each), "g_idx": (in_features,)}  # fmt: skip
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.int32))
        self.register_buffer("scales", torch.zeros(groups, out_features))
        self._sorted = self._sorted_from = None

    def forward(self, x: Float[Tensor, "*rows i"]) -> Float[Tensor, "*rows o"]:
        if few_bit_product_serves(x) and (levels := self.sorted_levels()):
            return few_bit_product(x, levels, self.qzeros, self.scales, self.form.bits)
        return F.linear(x, self.weight(x.dtype))

    def weight(self, dtype: torch.dtype = torch.float32) -> Float[Tensor, "o i"]:
        """W as nn.Linear has it, computed in `dtype`."""
        levels = unpack(self.qweight.T, self.form.bits)  # (out, in)
        zeros = unpack(self.qzeros, self.form.bits) + 1  # (groups, out)
        group = self.g_idx.long()
        return self.scales.T.to(dtype)[:, group] * (levels - zeros.T[:, group]).to(dtype)

    def sorted_levels(self) -> Levels | None:
        """`sort_by_group` of what is stored; kept until that is replaced."""
        stored = self.qweight, self.g_idx
        if self._sorted_from is None or any(map(is_not, stored, self._sorted_from)):
            self._sorted, self._sorted_from = sort_by_group(*stored, self.form.bits), stored
        return self._sorted

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        self._sorted_from = None  # numbers may be copied into the tensors that are there
        super()._load_from_state_dict(*args, **kwargs)

    @classmethod
    def of(
        cls,
        levels: Int[Tensor, "o i"],
        scales: Float[Tensor, "o g"],
        zeros: Int[Tensor, "o g"],
        group: Int[Tensor, "i"],
        form: GPTQFormat,
    ) -> "QuantLinear":
        """The layer with these levels, 0 to 15, and zeros, 1 to 15, of 4 bits."""
        layer = cls(levels.shape[1], levels.shape[0], form)
        layer.qweight = pack(levels, form.bits).T.contiguous()
        layer.qzeros = pack(zeros.T.contiguous() - 1, form.bits)
        layer.scales = scales.T.contiguous()
        layer.g_idx = group
        return layer

    def check_stored(self, name: str) -> None:
        """ValueError, naming the tensor, for groups that are not there."""
        groups = len(self.scales)
        if self.g_idx.numel() and not 0 <= self.g_idx.min() <= self.g_idx.max() < groups:
            raise ValueError(f"tensor {name}.g_idx names a group outside 0 to {groups - 1}")

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, {self.form}"


def sort_by_group(qweight: Int[Tensor, "w o"], g_idx: Int[Tensor, "i"], bits: int) -> Levels | None:
    """The levels with groups together; None where an int32 would hold levels of two groups."""
    order = g_idx.argsort(stable=True)
    group = g_idx[order].unflatten(0, (-1, 32 // bits))
    if (group != group[:, :1]).any():
        return None
    group = group[:, 0].contiguous()
    if (order.diff() == 1).all():
        return Levels(qweight, group, None)
    levels = unpack(qweight.T, bits)[:, order]
    return Levels(pack(levels, bits).T.contiguous(), group, order.int())


def pack(levels: Int[Tensor, "r c"], bits: int) -> Int[Tensor, "r w"]:
    """Neighbours of a row into one int32, the first in the lowest bits."""
    each = 32 // bits
    shifts = torch.arange(0, 32, bits, device=levels.device)
    whole = (levels.long().unflatten(1, (-1, each)) << shifts).sum(-1)
    return torch.where(whole >= 2**31, whole - 2**32, whole).to(torch.int32)  # the sign is a bit


def unpack(packed: Int[Tensor, "r w"], bits: int) -> Int[Tensor, "r c"]:
    """The inverse of `pack`."""
    shifts = torch.arange(0, 32, bits, device=packed.device, dtype=torch.int32)
    return ((packed[..., None] >> shifts) & (2**bits - 1)).flatten(1)


def make_room(model: nn.Module, names, form: GPTQFormat) -> None:
    """Put a QuantLinear wherever `names` holds the qweight of a Linear of the model."""
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and f"{name}.qweight" in names:
            replace(model, name, QuantLinear(module.in_features, module.out_features, form))


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put `module` at the dotted `name`."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)
