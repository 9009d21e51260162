"""Which mesh a model fits on, and how: what `transnormer-edu plan` prints.

    best, *others = fitting(TransNormerConfig.preset("7b"), gpus=8, memory=80e9, context=131072)

Of all meshes data x sequence x tensor of so many GPUs those are kept whose largest moment fits into
the memory (memory.py). What does not recompute comes first, then what sends least for a token read.
"""

from itertools import product

from transnormer_edu import check
from transnormer_edu.config import TransNormerConfig
from transnormer_edu.info import scaled
from transnormer_edu.parallel.memory import Job, peak
from transnormer_edu.parallel.mesh import MeshShape
from transnormer_edu.parallel.traffic import sent


def fitting(
    config: TransNormerConfig, gpus: int, memory: float, context: int, rows: int | None = None
) -> list[Job]:
    """The jobs that fit into `memory` bytes of each GPU, the best first.

    rows: texts in one update, of all GPUs; None: one for each data rank.
    ValueError where none fits, with the least that is needed, or for sizes that cannot be.
    """
    if not check.is_number(memory) or not 0 < memory < float("inf"):
        raise ValueError(f"memory is {memory!r}, expected bytes of one GPU, above 0")
    possible = jobs(config, gpus, context, rows)
    found = [job for job in possible if needs(job) <= memory]
    if not found:
        least = min(possible, key=needs)
        raise ValueError(
            f"this needs at least {scaled(needs(least), 'B')} on each of {gpus} GPUs (as "
            f"{in_words(least)}), and they have {scaled(memory, 'B')}: take more GPUs, shorter "
            "texts or a smaller model"
        )
    return sorted(found, key=lambda job: (job.recompute, sum(sent(job).values()) / tokens(job)))


def jobs(config, gpus: int, context: int, rows: int | None = None) -> list[Job]:
    """One update on every mesh of so many GPUs that can share it; ValueError where none can."""
    check.whole("gpus", gpus)
    check.whole("context", context, least=2)
    rows is None or check.whole("batch_size", rows)
    found, reason = [], None
    for shape, recompute in product(_shapes(gpus), (False, True)):
        try:
            found.append(Job(config, shape, rows or shape.data, context, recompute))
        except ValueError as error:
            reason = error
    if not found:
        raise ValueError(f"no mesh of {gpus} GPUs can share this; of the last one tried: {reason}")
    return found


def needs(job: Job) -> int:
    """Bytes of each GPU in the largest moment."""
    return sum(peak(job)[1].values())


def tokens(job: Job) -> int:
    """Tokens that all GPUs read in one update."""
    return job.rows * job.context


def in_words(job: Job) -> str:
    """data 4 x sequence 2 x tensor 1, recomputing"""
    s = job.shape
    again = ", recomputing" if job.recompute else ""
    return f"data {s.data} x sequence {s.sequence} x tensor {s.tensor}{again}"


def _shapes(gpus):
    divisors = [n for n in range(1, gpus + 1) if gpus % n == 0]
    for sequence, tensor in product(divisors, divisors):
        if gpus % (sequence * tensor) == 0:
            yield MeshShape(gpus // (sequence * tensor), sequence, tensor)
