"""Tensor parallel: each process has some of the heads and some of the columns of every layer.

    GLA     q, k, v, u of the own heads;  o W_out over the own rows of W_out;  then summed
    SGLU    own columns of W_1, W_2;  own rows of W_3;  then summed
    norm    rho = 1 / sqrt(mean(o^2) + eps) spans all heads: each process sums the squares of its
            own, one number per token is summed over the processes (and one more backwards)

All of it equals one process (arXiv 2307.14995 divides its layers so, too). The matrices are
divided by PyTorch's `parallelize_module`; x itself is whole in each process.
"""

from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    parallelize_module,
)

from transnormer_edu.lrpe import lrpe

WHOLE = Replicate()
# One sum each way per mixer: x is marked once as whole, so that the gradients of all that read it
# are added up before they are summed over the processes.
MATRICES = {
    "token_mixer": PrepareModuleInput(
        input_layouts=(WHOLE, None, None, None, None),
        desired_input_layouts=(WHOLE, None, None, None, None),
    ),
    "token_mixer.qkvu_proj": ColwiseParallel(),
    "token_mixer.out_proj": RowwiseParallel(),
    "channel_mixer": PrepareModuleInput(input_layouts=(WHOLE,), desired_input_layouts=(WHOLE,)),
    "channel_mixer.l1": ColwiseParallel(),
    "channel_mixer.l2": ColwiseParallel(),
    "channel_mixer.l3": RowwiseParallel(),
}
THIN_GATE = {
    "token_mixer.u_proj.0": ColwiseParallel(output_layouts=WHOLE, use_local_output=False),
    "token_mixer.u_proj.1": ColwiseParallel(),
}


class SumOverRanks(torch.autograd.Function):
    """y = sum of x over the processes of a group; so each dx is the sum of all dy."""

    @staticmethod
    def forward(ctx, x, group):
        ctx.group = group
        total = x.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx, grad):
        total = grad.clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


class SplitSRMSNorm(nn.Module):
    """SRMSNorm over a width of which this process has some columns: x (b, n, width / T)."""

    def __init__(self, width: int, eps: float, group):
        super().__init__()
        self.width, self.eps, self.group = width, eps, group

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        squares = SumOverRanks.apply(wide.square().sum(-1, keepdim=True), self.group)
        return (wide * torch.rsqrt(squares / self.width + self.eps)).to(x.dtype)


class OwnLRPE(nn.Module):
    """LRPE with the angles of the own heads."""

    def __init__(self, theta: Tensor, mesh: DeviceMesh):
        super().__init__()
        self.theta = nn.Parameter(
            distribute_tensor(theta.data, mesh, [Shard(0)], src_data_rank=None)
        )

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        return lrpe(x, self.theta.to_local(), position)


def divide_tensors(model: nn.Module, mesh: DeviceMesh) -> None:
    """Keep this process's share of a model whose weights are the same everywhere (or on meta).

    mesh: the tensor axis. The embedding, which is the head too, is divided by words.
    """
    parallelize_module(
        model,
        mesh,
        {"model.embed_tokens": RowwiseParallel(input_layouts=WHOLE)},
        src_data_rank=None,
    )
    for block in model.model["layers"]:
        _keep_own_heads(block.token_mixer, mesh)
        plan = MATRICES | (THIN_GATE if isinstance(block.token_mixer.gate, int) else {})
        parallelize_module(block, mesh, plan, src_data_rank=None)


def _keep_own_heads(gla: nn.Module, mesh: DeviceMesh) -> None:
    """What GLA holds per head besides matrices: rates, angles, its norm, its sizes."""
    ranks, own = mesh.size(), mesh.get_local_rank()
    heads = gla.heads // ranks
    mine = slice(own * heads, (own + 1) * heads)
    gla.heads = heads
    gla.norm = SplitSRMSNorm(gla.out_proj.in_features, gla.norm.eps, mesh.get_group())
    gla.out_proj.in_features //= ranks
    gla.make_rate = partial(_rates_of, gla.make_rate, mine)
    gla.rate = gla.rate[mine].clone()
    if gla.lrpe is not None:
        gla.lrpe = OwnLRPE(gla.lrpe.theta, mesh)


def _rates_of(all_rates, mine: slice, dtype: torch.dtype) -> Tensor:
    return all_rates(dtype=dtype)[mine]
