"""Draws what run.py measured: python kernels/benchmarks/figure.py results/h100.json h100.svg"""

import json
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

# label, colour (Okabe and Ito's palette), line style, marker
LOOKS = {
    "ours": ("Lightning Attention, ours", "#0072B2", "-", "o"),
    "fla": ("flash-linear-attention, chunk_simple_gla", "#E69F00", "--", "s"),
    "softmax_cudnn": ("softmax, cuDNN", "#D55E00", "-.", "^"),
    "softmax_flash": ("softmax, FlashAttention", "#CC79A7", ":", "v"),
    "pytorch_chunked": ("PyTorch, chunked form", "#009E73", (0, (5, 1, 1, 1, 1, 1)), "D"),
}


def curve(results, name, key, heads):
    """Lengths and values of one contestant at one number of b·h."""
    rows = [r for r in results["rows"] if r["name"] == name and r["b"] * r["h"] == heads]
    rows = [r for r in rows if key in r]
    return [r["n"] for r in rows], [r[key] for r in rows]


def draw_times(axes, results, way, heads):
    """Time over length, both logarithmic, with the memory floor below."""
    for name, (label, colour, style, marker) in LOOKS.items():
        lengths, times = curve(results, name, f"{way}_ms", heads)
        if lengths:
            axes.plot(lengths, times, color=colour, linestyle=style, marker=marker, label=label)
    lengths, times = curve(results, "ours", f"{way}_ms", heads)
    _, shares = curve(results, "ours", f"{way}_of_floor", heads)
    floor = [time * share for time, share in zip(times, shares, strict=True)]
    axes.plot(lengths, floor, color="#555555", linewidth=1, label="memory floor")
    axes.set(xscale="log", yscale="log", title=way, xlabel="length n, tokens", ylabel="time, ms")
    axes.set_xticks(lengths, [f"{n:,}" for n in lengths])
    axes.minorticks_off()
    axes.grid(alpha=0.3)


def main(source, target, heads=128):
    with open(source) as file:
        results = json.load(file)
    figure, pair = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained")
    for axes, way in zip(pair, ("forward", "backward"), strict=True):
        draw_times(axes, results, way, heads)
    origin = results["origin"]
    figure.suptitle(
        f"{origin['device']}, bf16, b·h = {heads}, head size {results['head']}; {origin['date']}, "
        f"torch {origin['torch']}, triton {origin['triton']}",
        fontsize=9,
    )
    labels = pair[0].get_legend_handles_labels()
    figure.legend(*labels, loc="outside lower center", ncols=3, fontsize=8)
    figure.savefig(target)


if __name__ == "__main__":
    main(*sys.argv[1:3])
