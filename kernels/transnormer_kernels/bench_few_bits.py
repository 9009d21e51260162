"""Products with weights of 4 bits beside bf16's, on the GPU that is here.

    python -m transnormer_kernels.bench_few_bits --out few_bits.json [--sweep]

For each size of W and number of rows, milliseconds of one product with a cold cache: by the kernel,
with rows in order and shuffled (desc_act); by unpacking all of W first; and of bf16 weights.
`of_floor` is the time that copying as many bytes takes, as a share of the kernel's time. --sweep
tries tiles for few rows instead, from which the tables in plan.py are chosen.
"""

import argparse
import json
from itertools import product

import torch
import triton

from . import few_bit_product, quantised
from .bench import copy_speed, streamed
from .plan import Tiles

SIZES = [(4096, 4096), (4096, 11008)]  # inputs, outputs: two of the 7B model's
ROWS = (1, 2, 16, 64, 512, 4096)
GROUP = 128
COLD = 2**28  # bytes of weights in a row of calls: five times the L2 cache


def random_weights(inputs, outputs):
    """What few_bit_product is given after x, without an order."""
    whole = lambda *shape: torch.randint(-(2**31), 2**31, shape, device="cuda").int()  # noqa: E731
    groups = inputs // GROUP
    scales = 0.01 * torch.rand(groups, outputs, device="cuda").bfloat16()
    group = torch.arange(0, inputs, 8, device="cuda").int() // GROUP
    return whole(inputs // 8, outputs), whole(groups, outputs // 8), scales, group


def unpacked_first(x, qweight, qzeros, scales, group):
    """What the layer does without the kernel: all of W in x's type, then a product."""
    shift = torch.arange(0, 32, 4, device=x.device, dtype=torch.int32)
    levels = ((qweight.T[..., None] >> shift) & 15).flatten(1)
    zeros = ((qzeros[..., None] >> shift) & 15).flatten(1) + 1
    of_input = group.repeat_interleave(8).long()
    w = scales.T.to(x.dtype)[:, of_input] * (levels - zeros.T[:, of_input]).to(x.dtype)
    return torch.nn.functional.linear(x, w)


def times(inputs, outputs, rows):
    count = max(2, min(32, 2 * COLD // (inputs * outputs)))
    xs = [torch.randn(rows, inputs, device="cuda").bfloat16() for _ in range(count)]
    small = [(x, *random_weights(inputs, outputs)) for x in xs]
    mixed = [(*s, torch.randperm(inputs, device="cuda").int()) for s in small]
    plain = [(x, torch.randn(outputs, inputs, device="cuda").bfloat16()) for x in xs]
    found = {
        "kernel": streamed(few_bit_product, small),
        "kernel_shuffled": streamed(few_bit_product, mixed),
        "unpacked_first": streamed(unpacked_first, small[:2]),
        "bf16": streamed(torch.nn.functional.linear, plain),
    }
    read = sum(t.nbytes for t in small[0]) + 2 * rows * outputs
    return {name: round(ms, 5) for name, ms in found.items()} | {"bytes": read}


def sweep(out):
    """Every shape of tiles for one row, row by row and on the tensor cores, and for 16 rows."""
    row = product((64, 128), (8, 16, 32), (4, 8), (1, 3))
    tile = product((64, 128), (32, 64), (4,), (1, 4))
    tries = [("row", 1, Tiles(*t)) for t in row]
    tries += [("product", rows, Tiles(*t)) for t in tile for rows in (1, 16)]
    results = []
    for inputs, outputs in SIZES:
        weights = [random_weights(inputs, outputs) for _ in range(2 * COLD // (inputs * outputs))]
        for kernel, rows, tiles in tries:
            x = torch.randn(rows, inputs, device="cuda").bfloat16()
            quantised.ROW_BY_ROW = 1 if kernel == "row" else 0
            quantised.row_tiles = quantised.product_tiles = lambda *_, tiles=tiles: tiles
            batches = [(x, *w) for w in weights]
            try:
                wanted = unpacked_first(*batches[0])
                error = (few_bit_product(*batches[0]) - wanted).abs().max() / wanted.abs().max()
                found = {"ms": round(streamed(few_bit_product, batches), 5), "error": error.item()}
            except Exception as refused:
                found = {"refused": str(refused)[:80]}
            about = {"inputs": inputs, "outputs": outputs, "kernel": kernel, "rows": rows}
            results.append(about | tiles._asdict() | found)
            with open(out, "w") as file:
                json.dump(results, file)
    for row in sorted(results, key=lambda row: row.get("ms", 9))[:40]:
        print(json.dumps(row))


def main(out):
    speed = copy_speed()
    about = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    about |= {"triton": triton.__version__, "copy_gb_per_s": round(speed / 1e9)}
    results = []
    for inputs, outputs in SIZES:
        for rows in ROWS:
            row = {"inputs": inputs, "outputs": outputs, "rows": rows}
            row |= times(inputs, outputs, rows)
            row["of_floor"] = round(1e3 * row["bytes"] / speed / row["kernel"], 3)
            row["against_bf16"] = round(row["bf16"] / row["kernel"], 2)
            results.append(row)
            print(json.dumps(row), flush=True)
            with open(out, "w") as file:
                json.dump(about | {"results": results}, file, indent=1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="few_bits.json")
    parser.add_argument("--sweep", action="store_true")
    given = parser.parse_args()
    (sweep if given.sweep else main)(given.out)
