"""Measures the kernels on the GPU that is here: see transnormer_kernels/bench.py.

python kernels/benchmarks/run.py --out kernels/benchmarks/results/h100.json
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

from transnormer_kernels.bench import main  # noqa: E402

if __name__ == "__main__":
    main()
