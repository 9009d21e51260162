"""Compiles the kernels for GPUs that are not here, and says what each configuration needs.

    python tests/kernels/resources.py 90 [--all]      one JSON line per configuration

It has to run without TRITON_INTERPRET: an interpreted function cannot be compiled. Without --all it
takes the largest head of every row of the tables in plan.py; with it, every pair of head sizes.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from itertools import product

import torch
import triton
import triton.backends.nvidia
from transnormer_kernels import decode, lightning_v1, norm, plan, quantised, scan
from transnormer_kernels.loss import COLUMNS, WARPS, loss_kernel
from transnormer_kernels.projection import projection_kernel
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

SHARED_LIMIT = {80: 166912, 90: 232448, 100: 232448}  # bytes per program
STACK = {80: 0, 90: 0, 100: 8}  # bytes that are no spill: ptxas reports 0 spills beside them
COSINE_STACK = 32  # where a cosine divides a large angle by pi: an array, no spill
DIVISIBLE = [["tt.divisibility", 16]]
WHOLE = ("heads", "n", "segment_rows", "segments", "inner", "rows", "inputs", "outputs")
POINTED = {  # what is not of the operands' type
    "fp32": ("rate", "states", "state", "final_state", "initial", "grads", "first_grad", "losses"),
    "i32": ("qweight", "qzeros", "group", "order"),
    "i64": ("labels", "position"),
}
TYPES = {torch.bfloat16: "bf16", torch.float32: "fp32"}
DIMS = {"rate_strides": 2, "state_strides": 5, "final_strides": 5, "grad_strides": 5}
DIMS["first_strides"] = 5  # all others: 4, or 3 for rows
BIN = os.path.join(os.path.dirname(triton.backends.nvidia.__file__), "bin")


def source(kernel, dtype, constants, described=(), dims=4):
    """What a launch would compile: aligned pointers, unit last strides, sizes that divide by 16."""
    signature, constexprs, attrs = {}, {}, {}
    for index, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name], constexprs[(index,)] = "constexpr", constants[name]
        elif name.endswith("_strides"):
            count = DIMS.get(name, dims)
            signature[name] = ("i32",) * (count - 1) + ("constexpr",)
            constexprs[(index, count - 1)] = 1
            if name != "rate_strides":
                attrs |= {(index, i): DIVISIBLE for i in range(count - 1)}
        elif name in described:
            signature[name] = f"tensordesc<{dtype}[1, 1, {constants['CHUNK']}, {described[name]}]>"
        elif name in WHOLE or name.endswith("_stride") or name in ("activated", "ignored"):
            signature[name], attrs[(index,)] = "i32", DIVISIBLE
        elif name == "eps":
            signature[name] = "fp32"
        else:
            pointed = next((t for t, names in POINTED.items() if name in names), dtype)
            signature[name], attrs[(index,)] = "*" + pointed, DIVISIBLE
    return ASTSource(fn=kernel, signature=signature, constexprs=constexprs, attrs=attrs)


def measure(arch, src, warps, stages):
    """Registers per thread, spilled bytes per thread, shared memory of one program."""
    options = {"num_warps": warps, "num_stages": stages}
    compiled = triton.compile(src, target=GPUTarget("cuda", arch, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [os.path.join(BIN, "cuobjdump"), "-res-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", text)
    registers, stack, local = map(int, found.groups())
    flags = {name: src.constants.get((i,)) for i, name in enumerate(src.fn.arg_names)}
    no_spill = STACK[arch] + (COSINE_STACK if flags.get("LRPE") else 0)
    spilled = max(0, stack + local - no_spill)
    return {"registers": registers, "spilled": spilled, "shared": compiled.metadata.shared}


def scans(arch, dtype, dk, dv, tma):
    """The kernels of lightning_attention for one pair of head sizes."""
    name = TYPES[dtype]
    wide, tiles = plan.padded(dk), plan.scan_tiles(dtype, dk, dv, tma)
    size = {"DK": dk, "DV": dv, "DK_TILE": wide, "DV_TILE": tiles.columns, "CHUNK": tiles.chunk}
    flags = {"HAS_STATE": True, "RETURN_STATE": True, "TMA": tma}
    slim = tiles.columns
    boxes = {"q": wide, "k": wide, "v": slim, "o": slim} if tma else {}
    for reverse in (False, True):
        constants = size | flags | {"REVERSE": reverse}
        yield "scan", source(scan.scan_kernel, name, constants, boxes), tiles
    constants = size | {"REVERSE": False, "TMA": tma}
    boxes = {"k": wide, "v": slim} if tma else {}
    yield "segment_state", source(scan.segment_state_kernel, name, constants, boxes), tiles
    if plan.fused_back(dtype, dk, dv, tma, arch // 10):
        tiles = plan.back_tiles(dk, dv)
        high = plan.padded(dv)
        flags = {"HAS_STATE": True, "HAS_GRAD": True, "RETURN_GRAD": True, "TMA": True}
        constants = size | flags | {"DV_TILE": high, "CHUNK": tiles.chunk}
        boxes = {"q": wide, "k": wide, "v": high, "do": high, "dq": wide}
        yield "backward", source(scan.backward_kernel, name, constants, boxes), tiles


def others(arch, dtype, dk, dv):
    """v1 and the decode step."""
    name, wide, tiles = TYPES[dtype], plan.padded(dk), plan.v1_tiles(dtype, dk, dv)
    size = {"DK": dk, "DV": dv, "DK_TILE": wide}
    constants = size | {"DV_TILE": tiles.columns, "BLOCK": tiles.chunk, "REVERSE": True}
    yield "v1", source(lightning_v1.left_product_kernel, name, constants), tiles
    tiles = plan.Tiles(1, decode.COLUMNS, 4, 1)
    DIMS["state_strides"] = 4
    constants = size | {"DV_TILE": min(decode.COLUMNS, plan.padded(dv)), "EARLY": arch >= 90}
    for features in {dk, dk // 2}:
        constants |= {"FEATURES": features, "LRPE": features < dk}
        yield "decode", source(decode.decode_kernel, name, constants, dims=3), tiles
    DIMS["state_strides"] = 5


def norms(dtype, width):
    tile = triton.next_power_of_2(width)
    tiles = plan.Tiles(1, tile, plan.norm_warps(tile), 1)
    constants = {"WIDTH": width, "TILE": tile, "GATED": True}
    for kernel in (norm.forward_kernel, norm.backward_kernel):
        yield kernel.__name__, source(kernel, TYPES[dtype], constants, dims=3), tiles


def losses(dtype, words):
    tile = min(COLUMNS, triton.next_power_of_2(words))
    constants = {"WIDTH": words, "TILE": tile}
    yield "loss", source(loss_kernel, TYPES[dtype], constants), plan.Tiles(1, tile, WARPS, 3)


PROJECTIONS = {  # what stands around each matrix when a model decodes: see decoder.py
    "q, k, v, u": {"NORM"},
    "out": {"NORM", "GATED", "ADD"},
    "glu": {"NORM", "PAIR"},
    "down": {"ADD"},
}


def projections(arch, dtype, width, out):
    for flags in PROJECTIONS.values():
        tiles = plan.projection_tiles(width, out, "PAIR" in flags)
        size = {"IN": width, "OUT": out, "IN_TILE": triton.next_power_of_2(width)}
        constants = size | {"OUT_TILE": tiles.columns, "EARLY": arch >= 90}
        constants |= {flag: flag in flags for flag in ("NORM", "GATED", "PAIR", "ADD")}
        pointers = {"GATED": "gate", "PAIR": "w2", "ADD": "add"}
        constants |= {name: None for flag, name in pointers.items() if flag not in flags}
        yield "projection", source(projection_kernel, TYPES[dtype], constants), tiles


def few_bits(dtype, bits):
    """One row with the groups' order, and each number of rows that has tiles of its own."""
    name, tiles = TYPES[dtype], plan.row_tiles(dtype)
    constants = {"BITS": bits, "WORDS": tiles.chunk, "COLUMNS": tiles.columns}
    for ordered in (False, True):
        flags = {"ORDERED": ordered, "STAGES": tiles.stages} | ({} if ordered else {"order": None})
        yield "row", source(quantised.row_kernel, name, constants | flags, dims=2), tiles
    for rows in (16, 64, 128):
        size, tiles = plan.product_rows(dtype, rows), plan.product_tiles(dtype, rows)
        constants = {"BITS": bits, "ROWS": size, "COLUMNS": tiles.columns, "INPUTS": tiles.chunk}
        yield "product", source(quantised.product_kernel, name, constants, dims=2), tiles


def joins(segments):
    constants = {"DK": 128, "DV": 128, "SEGMENTS": segments, "REVERSE": False, "HAS_STATE": True}
    constants["TILE"] = max(16, plan.JOIN_CELLS // segments)
    tiles = plan.Tiles(segments, constants["TILE"], 4, 3)
    yield "join_states", source(scan.join_states_kernel, "fp32", constants), tiles


def configurations(arch, every):
    """(what, source, tiles) of everything that can be chosen on this architecture."""
    few = [(16, 16), (32, 32), (64, 64), (128, 64), (128, 128), (256, 128), (128, 256), (256, 256)]
    pairs = list(product((16, 32, 64, 128, 256), repeat=2)) if every else few
    for dtype, (dk, dv) in product(TYPES, pairs):
        if dtype == torch.float32 and not every and (dk, dv) not in few[4:]:
            continue
        for tma in (False, True) if arch >= 90 and dtype != torch.float32 else (False,):
            for found in scans(arch, dtype, dk, dv, tma):
                yield {"dtype": TYPES[dtype], "dk": dk, "dv": dv, "tma": tma}, *found
        if every or (dk, dv) in few[-4::3]:
            for found in others(arch, dtype, dk, dv):
                yield {"dtype": TYPES[dtype], "dk": dk, "dv": dv}, *found
    for width in (1000, 1024, 4096, 8192, 16384) if every else (4096, 16384):
        for found in norms(torch.bfloat16, width):
            yield {"width": width}, *found
    for dtype in TYPES:
        yield {"dtype": TYPES[dtype]}, *next(losses(dtype, 64000))
    for width, out in ((1024, 8192), (2048, 2048), (2048, 8192), (8192, 8192), (16384, 8192)):
        for found in projections(arch, torch.bfloat16, width, out):
            yield {"width": width, "out": out}, *found
    for dtype, bits in product(TYPES, (2, 4, 8)):
        if dtype == torch.float32 and bits != 4 and not every:
            continue  # minutes of the compiler's time, for checking alone
        for found in few_bits(dtype, bits):
            yield {"dtype": TYPES[dtype], "bits": bits}, *found
    for segments in (2, 16, 256):
        for found in joins(segments):
            yield {"segments": segments}, *found


def main(arch, every):
    seen = set()
    for what, kernel, src, tiles in configurations(arch, every):
        if src.hash() in seen:
            continue
        seen.add(src.hash())
        used = measure(arch, src, tiles.warps, tiles.stages)
        used["fits"] = used["spilled"] == 0 and used["shared"] <= SHARED_LIMIT[arch]
        print(json.dumps({"kernel": kernel, "arch": arch, **what, **tiles._asdict(), **used}))


if __name__ == "__main__":
    if os.environ.get("TRITON_INTERPRET", "0") == "1":
        sys.exit("resources.py compiles; run it without TRITON_INTERPRET.")
    main(int(sys.argv[1]), "--all" in sys.argv)
