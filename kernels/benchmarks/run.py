"""Measures the kernels on the GPU that is here: see transnormer_kernels/bench.py.

python kernels/benchmarks/run.py --out kernels/benchmarks/results/h100.json
python kernels/benchmarks/figure.py kernels/benchmarks/results/h100.json h100.svg
"""

import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from transnormer_kernels.bench import main  # noqa: E402


def peers():
    """The PyTorch chunked form, where the course's package is installed beside the kernels."""
    if find_spec("transnormer_edu") is None:
        return {}
    from transnormer_edu.attention import linear_attention

    return {"pytorch_chunked": partial(linear_attention, form="chunked")}


if __name__ == "__main__":
    main(peers=peers())
