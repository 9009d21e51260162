"""Memory of the past: a state that stays, a cache that grows."""

from collections.abc import Sequence

from transnormer_edu.plots.style import (
    BLUE,
    INK,
    LINES,
    Drawing,
    drawing,
    need_equal_lengths,
    new_figure,
)

MB = 1e6


@drawing
def what_is_left(values: Sequence[float], decay: float) -> Drawing:
    """Value of each token, hollow, and what the last token still sees of it, filled.

    Errors: ValueError for no values or a decay outside 0 to 1.
    """
    need_equal_lengths(values=values)
    if not 0 <= decay <= 1:
        raise ValueError(f"decay is {decay}, expected 0 to 1")
    n = len(values)
    left = [decay ** (n - 1 - s) * value for s, value in enumerate(values)]
    figure = new_figure(5.5, 2.8)
    axes = figure.subplots()
    axes.bar(range(1, n + 1), values, facecolor="none", edgecolor=INK, label="as it came")
    axes.bar(range(1, n + 1), left, color=BLUE, width=0.5, label=f"left at token {n}")
    axes.set_xticks(range(1, n + 1))
    axes.set(xlabel="token (number)", ylabel="value (1)")
    axes.legend(loc="upper left")
    said = ", ".join(f"{part:g} of {value:g}" for part, value in zip(left, values, strict=True))
    return figure, f"What token {n} still sees of each: {said}."


@drawing
def state_and_cache(
    lengths: Sequence[int], state_bytes: float, cache_bytes_per_token: float
) -> Drawing:
    """Bytes that a model keeps of one text, over its length: state and key-value cache.

    Errors: ValueError for no lengths, or sizes that are not above 0.
    """
    need_equal_lengths(lengths=lengths)
    if min(state_bytes, cache_bytes_per_token, *lengths) <= 0:
        raise ValueError(
            f"got lengths {list(lengths)}, state {state_bytes} and cache {cache_bytes_per_token} "
            "bytes; expected all above 0"
        )
    figure = new_figure(height=3.5)
    axes = figure.subplots()
    cache = [n * cache_bytes_per_token / MB for n in lengths]
    axes.loglog(lengths, [state_bytes / MB] * len(lengths), label="state (linear)", **LINES[0])
    axes.loglog(lengths, cache, label="key-value cache (softmax)", **LINES[1])
    meet = state_bytes / cache_bytes_per_token
    axes.plot([meet, meet], [min(cache), state_bytes / MB], color=INK, linestyle=":")
    axes.set(xlabel="text read so far (tokens)", ylabel="kept of the past (MB)")
    axes.legend(loc="upper left")
    return figure, (
        f"The state is {state_bytes / MB:.1f} MB at any length. The cache is as large after "
        f"{meet:.0f} tokens, and {cache[-1] * MB / state_bytes:,.0f} times as large after "
        f"{lengths[-1]:,}."
    )
