"""How processes that hold consecutive stretches of a text hand on the state.

A stretch of m tokens leaves S_own behind; with keep = lambda^m, what process r is given is

    S_in(r) = keep S_in(r-1) + S_own(r-1),    S_in(0) = 0

and of its gradient, from the other end,  G_out(r) = keep G_out(r+1) + G_own(r+1),  G_out(R-1) = 0.
Both have the same size whatever m is: (b, h, dk, dv) (LASP, arXiv 2404.02882). Two ways to send it,
each in two parts, so that something else can be computed in between:

    Ring      from neighbour to neighbour: one state sent by each, R - 1 steps one after the other
    Gather    everyone's S_own to everyone (LASP-2): R states received by each, in one step
"""

import torch
import torch.distributed as dist
from torch import Tensor


class Ring:
    """Receive, add, send on. `reverse`: from the last process to the first."""

    def __init__(self, group, keep: Tensor, reverse: bool = False):
        self.group, self.keep = group, keep
        rank, last = dist.get_rank(group), dist.get_world_size(group) - 1
        before, after = (rank + 1, rank - 1) if reverse else (rank - 1, rank + 1)
        self.source = dist.get_global_rank(group, before) if 0 <= before <= last else None
        self.target = dist.get_global_rank(group, after) if 0 <= after <= last else None

    def start(self, own: Tensor) -> None:
        """Be ready for the message; returns at once."""
        self.given = torch.zeros_like(own)
        self.work = None
        if self.source is not None:
            self.work = dist.irecv(self.given, self.source, group=self.group)

    def finish(self, own: Tensor) -> Tensor:
        """Wait for the message, send on what comes of it; S_in, or G_out in reverse."""
        if self.work is not None:
            self.work.wait()
        # Let go of: autograd will know the state as the outcome of a step that knows this object,
        # and a circle of those keeps all activations of a recomputed block.
        given, self.given = self.given, None
        if self.target is not None:
            dist.send(self.keep * given + own, self.target, group=self.group)
        return given


class Gather:
    """Everyone's to everyone, each then adds up those that come before it."""

    def __init__(self, group, keep: Tensor, reverse: bool = False):
        self.group, self.keep, self.reverse = group, keep, reverse

    def start(self, own: Tensor) -> None:
        """Send; returns at once."""
        self.all = [torch.empty_like(own) for _ in range(dist.get_world_size(self.group))]
        self.work = dist.all_gather(self.all, own.contiguous(), group=self.group, async_op=True)

    def finish(self, own: Tensor) -> Tensor:
        """Wait, and add up; S_in, or G_out in reverse."""
        self.work.wait()
        rank = dist.get_rank(self.group)
        earlier = reversed(self.all[rank + 1 :]) if self.reverse else self.all[:rank]
        self.all = None
        given = torch.zeros_like(own)
        for one in earlier:
            given = self.keep * given + one
        return given


EXCHANGES = {"ring": Ring, "gather": Gather}
