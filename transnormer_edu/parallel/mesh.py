"""The mesh: which process does which share of the work.

All processes stand on a grid of three axes, data x sequence x tensor:

    data        each holds other texts of a batch                       rows b / D
    sequence    each holds another stretch of the same texts            tokens n / S
    tensor      each holds other heads and other columns of each layer  heads H / T

Process number = (data * S + sequence) * T + tensor: those that talk most, the tensor axis, are
neighbours, so that they sit in one machine. D S T processes in all.
"""

from dataclasses import dataclass

from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from transnormer_edu import check
from transnormer_edu.config import TransNormerConfig

AXES = ("data", "sequence", "tensor")


@dataclass(frozen=True)
class MeshShape:
    """How many processes along each axis. ValueError for what is no whole number of at least 1."""

    data: int = 1
    sequence: int = 1
    tensor: int = 1

    def __post_init__(self):
        for axis in AXES:
            check.whole(f"{axis} parallel", getattr(self, axis))

    @property
    def processes(self) -> int:
        """How many processes it takes."""
        return self.data * self.sequence * self.tensor

    @classmethod
    def of(cls, processes: int, sequence: int = 1, tensor: int = 1, data: int | None = None):
        """The shape for so many processes; without `data` all that are left go there.

        ValueError where the axes do not multiply to the number of processes.
        """
        inner = cls(1, sequence, tensor).processes
        shape = cls(max(1, processes // inner) if data is None else data, sequence, tensor)
        if shape.processes != processes:
            raise ValueError(
                f"data {shape.data} x sequence {sequence} x tensor {tensor} makes "
                f"{shape.processes} processes, and this job has {processes}: choose axes whose "
                f"product is {processes}, or start {shape.processes} processes with torchrun"
            )
        return shape

    def check_model(self, config) -> None:
        """ValueError unless a model of this config can be divided so."""
        if self.sequence * self.tensor == 1:
            return
        if not isinstance(config, TransNormerConfig):
            raise ValueError(
                "only a TransNormerLLM can be divided along sequence or tensor, not a "
                f"{type(config).__name__}: use data parallel alone"
            )
        if config.quantization is not None:
            raise ValueError("a model in few bits cannot be divided: use one process")
        if self.tensor > 1 and config.norm != "simplermsnorm":
            raise ValueError(
                f"norm is {config.norm!r}; tensor parallel needs simplermsnorm, which has nothing "
                "to learn"
            )
        sizes = {"heads": config.heads, "glu_dim": config.glu_dim}
        if isinstance(config.gate, int):
            sizes["gate"] = config.gate
        for name, size in sizes.items():
            if size % self.tensor:
                raise ValueError(
                    f"{name} is {size}, which {self.tensor} tensor ranks cannot share evenly: "
                    f"choose a number of ranks that divides it"
                )

    def check_batch(self, rows: int, tokens: int) -> None:
        """ValueError unless a batch (b, n) can be divided so."""
        for axis, what, size in (("data", "batch_size", rows), ("sequence", "context", tokens)):
            parts = getattr(self, axis)
            if size % parts:
                raise ValueError(
                    f"{what} is {size}, which {parts} {axis} ranks cannot share evenly: choose a "
                    f"multiple of {parts}"
                )


def make_mesh(shape: MeshShape, device_type: str = "cpu") -> DeviceMesh:
    """The grid of this job's processes; every one of them has to call it."""
    sizes = tuple(getattr(shape, axis) for axis in AXES)
    return init_device_mesh(device_type, sizes, mesh_dim_names=AXES)


def shards_of(mesh: DeviceMesh) -> DeviceMesh:
    """Data x sequence as one axis: all processes that hold the same heads share their weights."""
    return mesh["data", "sequence"]._flatten("shards")
