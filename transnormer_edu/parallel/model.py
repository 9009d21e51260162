"""A language model divided over a mesh of processes: the same numbers as in one.

    model = divide(TransNormerLLM(config), make_mesh(MeshShape(data=2, sequence=2, tensor=2)))
    loss = model(ids, labels=ids)     # ids (b, n): this data rank's rows, whole texts
    loss.backward()                   # gradients of the loss over all rows of all data ranks

Weights and what AdamW remembers of them are divided over all processes that have the same heads
(FSDP, PyTorch's `fully_shard`): each block's are brought together just before it is used.
"""

from functools import partial

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate

from transnormer_edu.config import TransNormerConfig
from transnormer_edu.cross_entropy import IGNORED_LABEL, autocast_type, cross_entropy
from transnormer_edu.parallel.loss import split_cross_entropy
from transnormer_edu.parallel.mesh import AXES, MeshShape, shards_of
from transnormer_edu.parallel.order import (
    ProjectionByHeads,
    features_as_released,
    parts_of,
    rows_by_heads,
)
from transnormer_edu.parallel.sequence import divide_sequence
from transnormer_edu.parallel.tensor import divide_tensors


class ParallelModel(nn.Module):
    """What `divide` makes. `model` is the model inside, its parameters PyTorch's DTensors."""

    def __init__(self, model: nn.Module, mesh: DeviceMesh):
        super().__init__()
        self.model, self.mesh, self.config = model, mesh, model.config
        self.shards = shards_of(mesh)
        self.shape = MeshShape(*(mesh[axis].size() for axis in AXES))

    def forward(
        self, ids: Tensor, labels: Tensor | None = None, targets: Tensor | None = None
    ) -> Tensor:
        """The loss over all processes' rows; without labels the logits of the own stretch.

        ids, labels: (b, n), the rows of this data rank, of which its stretch of columns is used.
        targets: instead of labels, what to say after each token, -100 where nothing is asked.
        The same loss comes back everywhere; each backward is that of the own share.
        """
        # Moved before it is cut: a stretch's last label is the next stretch's first token.
        if labels is not None:
            targets = F.pad(labels[:, 1:].long(), (0, 1), value=IGNORED_LABEL)
        return self._of_targets(ids, targets)

    def nats(self, ids: Tensor, targets: Tensor) -> float:
        """Sum of -log p over all processes' rows; targets (b, n): what to say after each token."""
        count = (targets != IGNORED_LABEL).sum()
        dist.all_reduce(count, group=self.mesh["data"].get_group())
        return float(self(ids, targets=targets)) * int(count) if count else 0.0

    def _of_targets(self, ids, targets):
        self.model.check_input(ids, targets)
        self.shape.check_batch(self.shape.data, ids.shape[1])
        mine = self._stretch(ids.shape[1])
        position = torch.arange(ids.shape[1], device=ids.device)[mine]
        x = self.model.embed(ids[:, mine].long(), position)
        for block in self.model.model["layers"]:
            x, _ = block(x, position)
        x = self.model.model["final_norm"](x)
        if targets is None:
            return self._logits(x)
        return self._loss(x.flatten(0, 1), targets[:, mine].long().flatten())

    def _stretch(self, n: int) -> slice:
        """The columns of this process: n / S of them."""
        size, own = n // self.shape.sequence, self.mesh.get_local_rank("sequence")
        return slice(own * size, (own + 1) * size)

    def _loss(self, x, labels):
        shards = self.shards.get_group()
        count = (labels != IGNORED_LABEL).sum()
        dist.all_reduce(count, group=shards)
        words = self.model.model["embed_tokens"].weight
        if isinstance(words, DTensor):
            tensor = self.mesh["tensor"]
            first = -(-words.shape[0] // tensor.size()) * tensor.get_local_rank()
            own = words.to_local()
            share = split_cross_entropy(x, own, labels, count, first, tensor.get_group())
        else:
            share = cross_entropy(x, words, labels, count)
        return _Total.apply(share, shards)

    def _logits(self, x):
        words = self.model.model["embed_tokens"].weight
        if not isinstance(words, DTensor):
            return F.linear(x, words)
        x = DTensor.from_local(x, self.mesh["tensor"], [Replicate()])
        return F.linear(x, words).redistribute(placements=[Replicate()]).to_local()


class _Total(torch.autograd.Function):
    """The sum of all shares; backwards each process follows its own (FSDP adds those up)."""

    @staticmethod
    def forward(ctx, share, group):
        total = share.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx, grad):
        return grad, None


def divide(
    model: nn.Module,
    mesh: DeviceMesh,
    *,
    exchange: str = "ring",
    recompute: bool = False,
    bf16: bool = False,
    compiled: bool = False,
) -> ParallelModel:
    """Divide a model, whose weights are the same in every process, over the mesh; in place.

    exchange    how stretches of a text hand on their state: "ring" or "gather" (exchange.py)
    recompute   keep only each block's input, and compute the rest again in the backward
                (activation checkpointing): less memory, a third more work
    bf16        bring the blocks' weights together in bfloat16; gradients are added in float32.
                To be used under autocast, as in one process
    compiled    torch.compile each block

    Raises ValueError for a model or mesh that do not fit each other.
    """
    shape = MeshShape(*(mesh[axis].size() for axis in AXES))
    shape.check_model(model.config)
    linear = isinstance(model.config, TransNormerConfig)
    if linear:
        _order_rows(model)
    if shape.tensor > 1:
        divide_tensors(model, mesh["tensor"])
    if shape.sequence > 1:
        divide_sequence(model, mesh["sequence"].get_group(), exchange)
    if linear:
        _order_outputs(model, shape.tensor)  # last: this process's rows, after they were divided
    whole = ParallelModel(model, mesh)
    _shard(whole, whole.shards, recompute, bf16, compiled)
    return whole


def _order_rows(model) -> None:
    """Each fused projection by heads (order.py)."""
    for block in model.model["layers"]:
        gla = block.token_mixer
        weight = rows_by_heads(gla.qkvu_proj.weight.data, parts_of(model.config), gla.heads)
        gla.qkvu_proj.weight = nn.Parameter(weight.contiguous())


def _order_outputs(model, tensor: int) -> None:
    """What those projections give, again as GLA expects it.

    A process with all heads orders the weight's rows once more: a few MB, where the features of
    all tokens would be hundreds. One with some of them orders the features.
    """
    for block in model.model["layers"]:
        gla, parts = block.token_mixer, parts_of(model.config)
        if tensor == 1:
            gla.qkvu_proj.forward = partial(_project, gla.qkvu_proj, parts, gla.heads)
        else:
            gla.qkvu_proj.register_forward_hook(partial(_as_released, parts, gla.heads))


def _project(linear, parts, heads, x):
    kind = autocast_type(x)
    return ProjectionByHeads.apply(x.to(kind), linear.weight.to(kind), parts, heads)


def _as_released(parts, heads, module, inputs, out):
    return features_as_released(out, parts, heads)


def _shard(whole: ParallelModel, mesh: DeviceMesh, recompute, bf16, compiled) -> None:
    """Recompute, then compile, then FSDP around it: block by block, the rest at the end."""
    exact = MixedPrecisionPolicy(cast_forward_inputs=False)
    # The residual stream keeps its type: what is narrow is the weights, as under autocast.
    half = dict(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    narrow = MixedPrecisionPolicy(**half, cast_forward_inputs=False) if bf16 else exact
    layers = whole.model.model["layers"]
    for i, block in enumerate(layers):
        angles = getattr(getattr(block, "token_mixer", None), "lrpe", None)
        if angles is not None:
            fully_shard(angles, mesh=mesh, mp_policy=exact)  # they are never rounded
        if recompute:
            layers[i] = checkpoint_wrapper(block)
        if compiled:
            layers[i].forward = torch.compile(layers[i].forward, dynamic=False)
        fully_shard(layers[i], mesh=mesh, mp_policy=narrow)
    fully_shard(whole, mesh=mesh, mp_policy=exact)
    whole.register_forward_hook(_let_go)
    if mesh.size() == 1:
        return  # nothing is added up, and dividing by 1 would copy all gradients twice more
    for module in whole.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)  # the loss is divided by all labels already
            module.set_force_sum_reduction_for_comms(True)  # gloo has no other in float32


def _let_go(whole, inputs, out):
    """FSDP keeps the embedding whole until the backward; where none comes it would go stale."""
    if not torch.is_grad_enabled():
        whole.reshard()
