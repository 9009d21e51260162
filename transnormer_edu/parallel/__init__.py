"""The same model on many processes, by PyTorch's distributed engine.

mesh.py       the grid of processes: data x sequence x tensor
model.py      `divide`: a model over that grid, with the numbers of one process
tensor.py     heads and columns divided;  loss.py  words divided
sequence.py   texts divided;  exchange.py  how the state is handed on
order.py      rows of the fused projection by heads, and as released
messages.py   how many bytes are sent, counted
memory.py, traffic.py, plan.py    bytes held and sent, foreseen: which mesh fits
demo.py       a few processes on this computer, from a notebook
"""

from transnormer_edu.parallel.demo import run
from transnormer_edu.parallel.mesh import MeshShape, make_mesh
from transnormer_edu.parallel.messages import MessageCounter
from transnormer_edu.parallel.model import ParallelModel, divide

__all__ = ["MeshShape", "MessageCounter", "ParallelModel", "divide", "make_mesh", "run"]
