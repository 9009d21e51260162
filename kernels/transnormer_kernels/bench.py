"""Speed, memory and error of the kernels beside their peers, on the GPU that is here.

    python -m transnormer_kernels.bench --out results.json

Everything is set against the memory floor of the same run: the bytes of q, k, v, o (backward: q,
k, v, do, dq, dk, dv), each moved once at the speed of Tensor.copy_. Times are the device's: before
each call the L2 cache is flushed for so long that the host has queued the call by then, and up to
2048 tokens, and for the norms, a CUDA graph is replayed.
"""

import argparse
import datetime
import json
import platform
import subprocess
from itertools import product

import torch
import triton

from . import decode_step, lightning_attention, srmsnorm, srmsnorm_gate

SHAPES = [(4, 32, 512), (4, 32, 2048), (4, 32, 8192), (4, 32, 32768),
          (1, 8, 32768), (1, 32, 32768), (1, 8, 131072), (1, 32, 131072)]  # fmt: skip
HEAD = 128
GRAPH_UP_TO = 2048
CHUNKED_UP_TO = 8192  # the PyTorch form is slow and large: not longer than this
SCORES_UP_TO = 2e11  # softmax is quadratic: not more scores than this
RATES = {"first layer": 1.0, "last layer": 0.0, "rate 0": None}  # share as in released_rates
WIDTHS = (1024, 2048, 4096, 8192)
ROWS = 32768


def released_rates(heads, share=1.0):
    """The released models' rates of one layer; share = 1 - layer / (layers - 1). None: all 0."""
    if share is None:
        return torch.zeros(heads, device="cuda")
    i = torch.arange(1, heads + 1, device="cuda")
    return 2.0 ** (-8 * i / heads) * (share + 1e-5)


# ------------------------------------------------------------------------------------ measuring


def milliseconds(call, graph=False, stream=None, seconds=0.1):
    """Median time of `call` on the device, with a cold L2 cache."""
    call(), call()
    torch.cuda.synchronize()
    if graph:
        recorded = torch.cuda.CUDAGraph()
        with torch.cuda.graph(recorded, stream=stream):
            call()
        call = recorded.replay
    flush = torch.empty(2**30, dtype=torch.int8, device="cuda")
    once = timed(call, flush, 2)[-1]
    times = timed(call, flush, int(min(20, max(3, 1e3 * seconds / once))))
    return sorted(times)[len(times) // 2]


def timed(call, flush, repeats):
    pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for begin, end in pairs:
        for _ in range(8):  # about 3 ms: the host is ahead of the device when the call begins
            flush.zero_()
        begin.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) for begin, end in pairs]


def streamed(call, batches):
    """Median milliseconds of one of many calls in a row, each on tensors of its own.

    One CUDA graph holds them all, so that the pause before a launch (about 4 µs, an empty kernel's
    time) does not count; together they move so much that each finds a cache full of others' data.
    """
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        time = milliseconds(lambda: [call(*batch) for batch in batches], graph=True, stream=stream)
    return time / len(batches)


def extra_memory(call):
    """Bytes at the peak of `call`, beyond what was allocated before; its result counts."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = call()
    torch.cuda.synchronize()
    del result
    return torch.cuda.max_memory_allocated() - before


def copy_speed():
    """Bytes read plus written per second by Tensor.copy_ of 1 GiB: the floor's measure."""
    x = torch.randn(2**29, device="cuda", dtype=torch.bfloat16)
    y = torch.empty_like(x)
    return 4e3 * x.numel() / milliseconds(lambda: y.copy_(x), seconds=0.3)


def matmul_speed(size=8192):
    """Floating-point operations per second of a bf16 product of two square matrices."""
    x, y, z = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    return 2e3 * size**3 / milliseconds(lambda: torch.mm(x, y, out=z), seconds=0.3)


def attention_inputs(b, h, n, dtype=torch.bfloat16):
    make = lambda: torch.randn(b, h, n, HEAD, device="cuda", dtype=dtype)  # noqa: E731
    q, k, v, do = make(), make(), make(), make()
    return [x.requires_grad_() for x in (q, k, v)], do


# ---------------------------------------------------------------------------------- contestants


def softmax(backend):
    def attend(q, k, v, rate):
        with torch.nn.attention.sdpa_kernel(getattr(torch.nn.attention.SDPBackend, backend)):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    return attend


def flash_linear_attention(q, k, v, rate):
    """chunk_simple_gla wants (b, n, h, d): contiguous there, so that it need not copy."""
    from fla.ops.simple_gla import chunk_simple_gla

    return chunk_simple_gla(q, k, v, g_gamma=-rate, scale=1.0)[0]


def lightning_attention_2(q, k, v, rate):
    """The paper's own kernel: pip install lightning-attn."""
    from lightning_attn.ops import lightning_attn_func

    return lightning_attn_func(q, k, v, rate)


CONTESTANTS = {
    "ours": lightning_attention,
    "lightning2": lightning_attention_2,
    "softmax_cudnn": softmax("CUDNN_ATTENTION"),
    "softmax_flash": softmax("FLASH_ATTENTION"),
    "fla": flash_linear_attention,  # last: its first call tunes for a minute or more
}


def race(name, attend, b, h, n, bandwidth):
    """One contestant at one size: times, share of the floor, memory; or why it did not run."""
    if name == "pytorch_chunked" and n > CHUNKED_UP_TO:
        return {"skipped": f"longer than {CHUNKED_UP_TO}"}
    if name.startswith("softmax") and b * h * n * n > SCORES_UP_TO:
        return {"skipped": f"more than {SCORES_UP_TO:.0e} scores"}
    try:
        return measure(attend, name == "fla", b, h, n, bandwidth)
    except Exception as error:
        return {"skipped": f"{type(error).__name__}: {str(error)[:120]}"}


def measure(attend, heads_last, b, h, n, bandwidth, share=1.0):
    leaves, do = attention_inputs(b, n, h) if heads_last else attention_inputs(b, h, n)
    rate = released_rates(h, share)
    stream = torch.cuda.Stream()
    graph = n <= GRAPH_UP_TO
    with torch.cuda.stream(stream):
        with torch.no_grad():
            forward = milliseconds(lambda: attend(*leaves, rate), graph, stream)
            memory = extra_memory(lambda: attend(*leaves, rate))
        o = attend(*leaves, rate)
        back = lambda: torch.autograd.grad(o, leaves, do, retain_graph=True)  # noqa: E731
        backward = milliseconds(back, graph, stream)
        memory_back = extra_memory(back)
    size = do.numel() * do.element_size()
    return {
        "forward_ms": forward,
        "backward_ms": backward,
        "forward_of_floor": 4e3 * size / bandwidth / forward,
        "backward_of_floor": 7e3 * size / bandwidth / backward,
        "forward_memory_of_output": memory / size,
        "backward_memory_of_gradients": memory_back / (3 * size),
    }


# ---------------------------------------------------------------------------------------- error


def float64_results(leaves, do, rate):
    """Output and gradients by the definition, one head at a time."""
    n = do.shape[2]
    i = torch.arange(n, device="cuda")
    gap = i[:, None] - i[None, :]
    results = [torch.empty(x.shape, dtype=torch.float64, device="cuda") for x in (do, *leaves)]
    for head in range(do.shape[1]):
        m = torch.where(gap >= 0, torch.exp(-rate[head].double() * gap.clamp(min=0)), 0.0)
        some = [x[:, head].detach().double().requires_grad_() for x in leaves]
        o = ((some[0] @ some[1].mT) * m) @ some[2]
        grads = torch.autograd.grad(o, some, do[:, head].double())
        for result, x in zip(results, (o, *grads), strict=True):
            result[:, head] = x.detach()
    return results


def errors(dtype, share, n=2048):
    """‖x - ref‖ / ‖ref‖ of o, dq, dk, dv: whole tensor, worst head. share as in released_rates."""
    leaves, do = attention_inputs(2, 8, n, dtype)
    rate = released_rates(8, share)
    o = lightning_attention(*leaves, rate)
    found = (o, *torch.autograd.grad(o, leaves, do))
    rows = {}
    for name, x, ref in zip(
        ("o", "dq", "dk", "dv"), found, float64_results(leaves, do, rate), strict=True
    ):
        gap = x.detach().double() - ref
        heads = gap.flatten(2).norm(dim=2) / ref.flatten(2).norm(dim=2)
        rows[name] = [(gap.norm() / ref.norm()).item(), heads.max().item()]
    return rows


# ---------------------------------------------------------------------------- norms, decode step


def norm_row(width, bandwidth):
    """SRMSNorm without and with the gate, forward and both ways; shares of the floor."""
    make = lambda: torch.randn(ROWS, width, device="cuda", dtype=torch.bfloat16)  # noqa: E731
    batches = [(make(), make(), make()) for _ in range(max(4, 2**14 // width))]  # x, u, dy
    back = torch.ops.transnormer.srmsnorm_backward
    forward = streamed(lambda x, u, dy: srmsnorm(x), batches)
    backward = streamed(lambda x, u, dy: back(dy, x, None, 1e-6), batches)
    gate = streamed(lambda x, u, dy: srmsnorm_gate(x, u), batches)
    gate_back = streamed(lambda x, u, dy: back(dy, x, u, 1e-6), batches)
    floor = 2e3 * ROWS * width / bandwidth  # one tensor moved once, ms
    return {
        "width": width,
        "forward_of_floor": 2 * floor / forward,
        "both_of_floor": 5 * floor / (forward + backward),
        "gate_forward_of_floor": 3 * floor / gate,
        "gate_both_of_floor": 8 * floor / (gate + gate_back),
    }


def decode_row(b, h, bandwidth):
    q, k, v = (torch.randn(b, h, HEAD, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    state = torch.randn(b, h, HEAD, HEAD, device="cuda")
    rate = released_rates(h)
    time = milliseconds(lambda: decode_step(q, k, v, rate, state), graph=True)
    floor = 2e3 * state.numel() * 4 / bandwidth
    return {"b": b, "h": h, "ms": time, "of_floor": floor / time}


# --------------------------------------------------------------------------------------- report


def origin(commit):
    """Where and with what this was measured."""
    if commit is None:
        git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True)
        commit = git.stdout.strip() or "unknown"
    return {
        "device": torch.cuda.get_device_name(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "commit": commit,
    }


def line(row):
    """One row as a line of the printed table."""
    cells = [f"{row['name']:16s} b·h={row['b'] * row['h']:<4d} n={row['n']:<7d}"]
    if "skipped" in row:
        return cells[0] + " " + row["skipped"]
    for way in ("forward", "backward"):
        cells.append(f"{way} {row[way + '_ms']:9.4f} ms {row[way + '_of_floor']:.2f} of floor")
    return "  ".join(cells)


def add_checks(results, bandwidth):
    """Errors, times with other rates, norms and the decode step: ours alone, without peers."""
    results["errors"] = {
        f"{str(dtype)[6:]}, {rates}": errors(dtype, share)
        for dtype in (torch.bfloat16, torch.float32)
        for rates, share in RATES.items()
    }
    for name, found in results["errors"].items():
        print("error", name, {k: [f"{e:.1e}" for e in v] for k, v in found.items()}, flush=True)
    results["rates"] = [
        {"rates": rates, **measure(lightning_attention, False, 4, 32, 8192, bandwidth, share)}
        for rates, share in RATES.items()
    ]
    results["norms"] = [norm_row(width, bandwidth) for width in WIDTHS]
    results["decode"] = [decode_row(b, h, bandwidth) for b, h in ((1, 32), (32, 32))]
    for row in (*results["rates"], *results["norms"], *results["decode"]):
        print({k: v if isinstance(v, str) else round(v, 4) for k, v in row.items()}, flush=True)


def add_races(results, contestants, bandwidth, out):
    """Each contestant at each size; the file is written after every row."""
    for (name, attend), (b, h, n) in product(contestants.items(), SHAPES):
        row = {"name": name, "b": b, "h": h, "n": n, **race(name, attend, b, h, n, bandwidth)}
        results["rows"].append(row)
        print(line(row), flush=True)
        torch.cuda.empty_cache()
        with open(out, "w") as file:
            json.dump(results, file, indent=1)


def main(argv=None, peers=None):
    """Measures, prints a table and writes the JSON file. peers: {name: f(q, k, v, rate)} to add."""
    contestants = CONTESTANTS | (peers or {})
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="kernels.json", help="where the results go")
    parser.add_argument("--only", nargs="*", default=list(contestants), choices=list(contestants))
    parser.add_argument("--commit", help="the commit measured, where git does not know")
    options = parser.parse_args(argv)
    if not torch.cuda.is_available():
        raise SystemExit("transnormer_kernels.bench: no GPU was found; these timings need one.")
    results = {"origin": origin(options.commit), "head": HEAD, "rows": []}
    bandwidth = results["copy_bytes_per_s"] = copy_speed()
    matmul = results["matmul_flop_per_s"] = matmul_speed()
    speeds = f"copy {bandwidth / 1e12:.3f} TB/s, bf16 matrix product {matmul / 1e12:.0f} TFLOP/s"
    print(results["origin"], speeds, flush=True)
    add_checks(results, bandwidth)
    add_races(results, {name: contestants[name] for name in options.only}, bandwidth, options.out)


if __name__ == "__main__":
    main()
