"""A GPU that is not there, and the other processes of a mesh that are not there either.

Tensors are PyTorch's fakes: shapes, types, when they are made and let go of, no numbers. The code
takes its way of a GPU (the kernels' registered shapes), collectives go to PyTorch's "fake" backend.
So what one process of a large mesh would hold and send can be counted here, op by op.
"""

import contextlib
from typing import NamedTuple
from weakref import WeakSet

import jaxtyping
import torch
import torch.distributed as dist
import transnormer_kernels.lightning as operator
import transnormer_kernels.loss as loss
import transnormer_kernels.norm as norm
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.distributed.device_mesh import DeviceMesh
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import transnormer_edu.cross_entropy as cross_entropy
import transnormer_edu.lightning as lightning
import transnormer_edu.parallel.loss as split
from transnormer_edu import TransNormerLLM
from transnormer_edu.parallel import MessageCounter, divide, make_mesh
from transnormer_edu.parallel.mesh import shards_of
from transnormer_edu.settings import TrainSettings
from transnormer_edu.train import make_optimizer

H100 = 132  # multiprocessors


class Held(TorchDispatchMode):
    """Bytes that tensors hold after each operation: now, and at most so far."""

    def __init__(self):
        super().__init__()
        self.storages, self.peak = WeakSet(), 0

    def note(self, *tensors):
        for x in tree_leaves(tensors):
            if isinstance(x, torch.Tensor):
                self.storages.add(getattr(x, "_local_tensor", x).untyped_storage())

    @property
    def now(self):
        return sum(storage.nbytes() for storage in self.storages)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            return 1  # there are no numbers: whoever looks at one finds this
        out = function(*args, **(kwargs or {}))
        self.note(out)
        self.peak = max(self.peak, self.now)
        return out


@contextlib.contextmanager
def pretended(shape, monkeypatch):
    """A GPU, and a mesh of this shape, in which this is process 0: the mesh."""
    monkeypatch.setattr(lightning, "_on_gpu", lambda x: x.dtype in lightning.KERNEL_DTYPES)
    monkeypatch.setattr(operator.plan, "processors", lambda device: H100)
    for module in (operator, loss, norm):
        monkeypatch.setattr(module, "check_launch", lambda x: None)
    monkeypatch.setattr(TransNormerLLM, "check_values", lambda *ids: None)  # there are none
    # Shape checks hold on to what they have checked.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    monkeypatch.setitem(cross_entropy.PIECE, "cpu", cross_entropy.PIECE["cuda"])
    for module in (cross_entropy, split):  # a GPU adds up narrow products in a new tensor
        monkeypatch.setattr(module, "add_product", lambda total, a, b: total.clone())
    monkeypatch.setattr(DeviceMesh, "_concatenate", _really(DeviceMesh._concatenate))
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=shape.processes)
    try:
        mesh = make_mesh(shape)
        shards_of(mesh)  # remembered: it cannot be made of fakes
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield mesh
    finally:
        dist.destroy_process_group()


def _really(method):
    """It reads numbers, which fakes do not have."""

    def really(*arguments, **named):
        with unset_fake_temporarily():
            return method(*arguments, **named)

    return really


class Update(NamedTuple):
    """The second of two updates: bytes held at most and after the forward, and what was sent."""

    peak: int
    forward: int
    sent: MessageCounter


def update(job, monkeypatch):
    """What process 0 of the job's mesh holds and sends, as parallel/train.py trains."""
    with pretended(job.shape, monkeypatch) as mesh:
        model = divide(TransNormerLLM(job.config), mesh, bf16=True, recompute=job.recompute)
        optimizer = make_optimizer(model.model, TrainSettings(device="cpu"))
        held = Held()
        held.note(*model.parameters(), *model.buffers())
        ids = torch.zeros(job.own_rows, job.context, dtype=torch.long)
        with held:
            for _ in range(2):
                held.peak, sent = 0, MessageCounter()
                optimizer.zero_grad()
                with sent, torch.autocast("cpu", torch.bfloat16):
                    loss = model(ids, labels=ids)
                forward = held.now
                with sent:
                    loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
    return Update(held.peak, forward, sent)
