"""Exercises of lesson 07: two limits of time, bytes that move, a tile of the mask, v1 in tiles."""

import math
from functools import partial

import torch

from transnormer_edu.attention import linear_attention
from transnormer_edu.decay import decay_mask
from transnormer_edu.exercises.borrowed import OPERATORS
from transnormer_edu.exercises.cases import (
    LONG,
    in_all_shapes,
    in_words,
    operands,
    some_do_not_decay,
    without_a_map,
)
from transnormer_edu.exercises.exercise import Case, Exercise, Question

# --- 7.1 ------------------------------------------------------------------------------------------


def programs(draw):
    for what, moved, operations in (
        ("a program that waits for memory", 3e9, 4e10),
        ("a program that waits for arithmetic", 2e8, 9e12),
        ("a small program", 7e5, 3e6),
    ):
        sizes = {"moved": moved, "operations": operations}
        machine = {"bandwidth": draw.random.uniform(1e12, 4e12), "peak": 7.1e14}
        yield Case(f"With {what}", sizes | machine)
    slow, fast = {"bandwidth": 2e10, "peak": 3e11}, {"bandwidth": 2.4e12, "peak": 7.1e14}
    yield Case("With a slow machine", {"moved": 5e6, "operations": 9e8} | slow)
    yield Case(
        "With a slow machine, 30 operations a byte", {"moved": 5e6, "operations": 1.5e8} | slow
    )
    yield Case(
        "With a fast machine, 250 operations a byte", {"moved": 1e9, "operations": 2.5e11} | fast
    )


def least(moved, operations, bandwidth, peak):
    return max(moved / bandwidth, operations / peak), moved * peak < operations * bandwidth


roofline = Exercise(
    number="7.1", title="Which limit?", level=1, worth=1, minutes=6,
    needs="lesson 07, section 3",
    function="least_time",
    returns={"seconds": "", "by_arithmetic": ""},
    reference=least,
    cases=programs,
    answers={
        "by two times": lambda moved, operations, bandwidth, peak: (
            (operations / peak, True) if operations / peak > moved / bandwidth
            else (moved / bandwidth, False)
        ),
        "by intensity": lambda moved, operations, bandwidth, peak: (
            moved / bandwidth * max(1.0, operations / moved / (peak / bandwidth)),
            operations / moved > peak / bandwidth,
        ),
    },
    mistakes={
        "the two times were added: a GPU moves and computes at once": lambda m, o, b, p: (
            m / b + o / p, least(m, o, b, p)[1]
        ),
        "the shorter of the two times was taken": lambda m, o, b, p: (
            min(m / b, o / p), least(m, o, b, p)[1]
        ),
        "the limits are named the wrong way round": lambda *x: (least(*x)[0], not least(*x)[1]),
        "arithmetic is left out": lambda m, o, b, p: (m / b, False),
        "memory is left out": lambda m, o, b, p: (o / p, True),
        "the bytes were divided by the peak, and the operations by the bandwidth": (
            lambda m, o, b, p: least(m, o, p, b)
        ),
        "times were turned into rates": lambda m, o, b, p: (
            max(b / m, p / o), least(m, o, b, p)[1]
        ),
    },
    gradients=False,
)  # fmt: skip

# --- 7.2 ------------------------------------------------------------------------------------------


def heads_in_memory(draw):
    for n, size in ((64, 16), (45, 8), (17, 5), (6, 9), (7, 1), (1, 4)):
        sizes = {"n": n, **draw.sizes("dk", "dv"), "size": size}
        yield Case(in_words("", sizes), sizes)
    yield Case(
        "With the lesson's three tokens in tiles of 2", {"n": 3, "dk": 1, "dv": 1, "size": 2}
    )


def moved(n, dk, dv, size, *, maps=2, diagonal=0, whole=False, again=True):
    """Numbers moved by the three ways; each option is one thing that can be got wrong."""
    in_order = 2 * n * (dk + dv)
    ends = [start + (size if whole else min(size, n - start)) for start in range(0, n, size)]
    seen = [end if diagonal == 0 else end - size for end in ends]
    keys = sum(seen) * (dk + dv) if again else n * (dk + dv)
    return in_order + maps * n * n, n * (dk + dv) + keys, in_order


def moved_by_walking(n, dk, dv, size):
    blocks = [range(start, min(start + size, n)) for start in range(0, n, size)]
    tiles = 0
    for i, rows in enumerate(blocks):
        tiles += len(rows) * (dk + dv)  # q in, o out
        tiles += sum(len(columns) * (dk + dv) for columns in blocks[: i + 1])  # k, v in
    each = sum(len(rows) * 2 * (dk + dv) for rows in blocks)
    return each + 2 * n**2, tiles, each


def moved_by_formula(n, dk, dv, size):
    full, rest = divmod(n, size)
    seen = size * full * (full + 1) // 2 + (n if rest else 0)
    once = n * (dk + dv)
    return 2 * (once + n * n), once + seen * (dk + dv), 2 * once


bytes_exercise = Exercise(
    number="7.2", title="What moves", level=2, worth=3, minutes=15,
    needs="lesson 07, sections 2, 4 and 5",
    function="numbers_moved",
    returns={"written_out": "", "tiles": "", "tiles_and_state": ""},
    reference=moved,
    cases=heads_in_memory,
    answers={"block by block": moved_by_walking, "formulas": moved_by_formula},
    mistakes={
        "the map is stored and loaded again: it moves twice": partial(moved, maps=1),
        "the map was left out, as if it stayed near the arithmetic": partial(moved, maps=0),
        "the tile on the diagonal needs its keys and values too": partial(moved, diagonal=1),
        "in tiles, keys and values are loaded again for each block of rows": partial(
            moved, again=False
        ),
        "the last block, which is shorter, was counted as a whole one": partial(moved, whole=True),
        "in tiles, all keys and values were loaded for each block: the future is not needed": (
            lambda n, dk, dv, size: (
                moved(n, dk, dv, size)[0],
                n * (dk + dv) + math.ceil(n / size) * n * (dk + dv),
                moved(n, dk, dv, size)[2],
            )
        ),
        "the state was counted: it stays near the arithmetic": lambda n, dk, dv, size: (
            *moved(n, dk, dv, size)[:2],
            moved(n, dk, dv, size)[2] + 2 * math.ceil(n / size) * dk * dv,
        ),
        "the output was left out": lambda n, dk, dv, size: tuple(
            x - n * dv for x in moved(n, dk, dv, size)
        ),
    },
    gradients=False,
)  # fmt: skip

# --- 7.3 ------------------------------------------------------------------------------------------


def tiles(draw):
    n, size = 17, draw.random.choice((3, 4, 5))
    blocks = math.ceil(n / size)
    last = blocks - 1
    for what, i, j in (
        ("a tile on the diagonal", 1, 1),
        ("a tile below it", 2, 0),
        ("the last rows, which are fewer", last, 1),
        ("the last tile of all", last, last),
        ("a tile above the diagonal", 0, 2),
        ("a tile above it, of the last columns", 0, last),
    ):
        rate = draw.rates(3)
        yield Case(
            f"With {what} (i={i}, j={j}, size={size}, n={n})",
            {"rate": rate, "i": i, "j": j, "size": size, "n": n},
        )
    one = {"i": 4, "j": 3, "size": 1, "n": 6}
    yield Case("With tiles of one number", {"rate": draw.rates(2), **one})
    narrow = {"i": 1, "j": 0, "size": 3, "n": 8}
    yield Case("With rates in float32", {"rate": draw.rates(2, dtype=torch.float32), **narrow})
    still = torch.tensor([0.0, 0.4]).double()
    for what, i, j in (("above", 0, 1), ("on", 1, 1), ("below", 2, 0)):
        inputs = {"rate": still, "i": i, "j": j, "size": 4, "n": 9}
        yield Case(f"With a head that does not decay, {what} the diagonal", inputs)
    for what, fast, i, j in (("above", 90, 0, 2), ("on", 90, 5, 5), ("on", 800, 2, 2)):
        rate = torch.tensor([fast]).double()
        inputs = {"rate": rate, "i": i, "j": j, "size": 5, "n": 29}
        yield Case(f"With a head that forgets at once (rate {fast}), {what} the diagonal", inputs)


def span(number, size, n):
    return torch.arange(number * size, min((number + 1) * size, n))


def tile(rate, i, j, size, n, *, rows=span, columns=span, cut=True, shift=0):
    age = rows(i, size, n)[:, None] - columns(j, size, n) + shift
    weight = torch.exp(-rate[:, None, None] * age.clamp(min=0).to(rate.dtype))
    return weight.masked_fill(age < 0, 0) if cut else weight


def cut_by_product(rate, i, j, size, n):
    x = rate[:, None, None] * (span(i, size, n)[:, None] - span(j, size, n))
    return torch.exp(-x.clamp(min=0)) * (x >= 0)


def hidden_too_late(rate, i, j, size, n):
    age = span(i, size, n)[:, None] - span(j, size, n)
    return torch.exp(-rate[:, None, None] * age).masked_fill(age < 0, 0)


def strict_tile(rate, i, j, size, n):
    """Without a token's own place."""
    age = span(i, size, n)[:, None] - span(j, size, n)
    return tile(rate, i, j, size, n) * (age > 0)


def tile_of_whole(rate, i, j, size, n):
    return decay_mask(rate, n)[:, span(i, size, n)][:, :, span(j, size, n)]


def local_span(number, size, n):
    return span(number, size, n) - number * size


def full_span(number, size, n):
    return torch.arange(number * size, (number + 1) * size)


mask_tile = Exercise(
    number="7.3", title="A tile of the mask", level=2, worth=2, minutes=10,
    needs="lesson 07, section 2, and 4.2",
    function="tile_of_mask",
    returns={"M": "head row column"},
    reference=tile_of_whole,
    finished={"decay_mask"},
    cases=tiles,
    answers={
        "from the places of rows and columns": tile,
        "from the distance of the blocks": lambda rate, i, j, size, n: torch.stack([
            torch.stack([
                torch.exp(-rate * max(t - s, 0)) * (t >= s) for s in span(j, size, n).tolist()
            ], -1) for t in span(i, size, n).tolist()
        ], 1).to(rate.dtype),
    },
    mistakes={
        "the places inside the blocks were taken, not those in the text": partial(
            tile, rows=local_span, columns=local_span
        ),
        "the last block is shorter: its places end at n": partial(
            tile, rows=full_span, columns=full_span
        ),
        "rows and columns are swapped, or ages have the wrong sign": lambda rate, i, j, size, n: (
            tile(rate, j, i, size, n).mT
        ),
        "i and j are swapped": lambda rate, i, j, size, n: tile(rate, j, i, size, n),
        "the future is not cut off": partial(tile, cut=False),
        "the future gets in where the rate is 0: cut by t - s, not by r (t - s)": cut_by_product,
        "exponents of the future overflow, and are hidden too late: their gradient is no number": (
            hidden_too_late
        ),
        "the newest token is decayed as well": lambda *x: (
            tile(*x) * torch.exp(-x[0])[:, None, None]
        ),
        "one number was taken for the whole tile: the age of its corner": (
            lambda rate, i, j, size, n: 0 * tile(rate, i, j, size, n)
            + torch.exp(-rate[:, None, None] * max(i - j, 0) * size) * (i >= j)
        ),
        "all heads decay like the first": lambda rate, *others: tile(
            rate[:1].expand_as(rate), *others
        ),
        "the rate was taken for λ": lambda rate, *others: tile(-rate.log(), *others),
        "all tiles were cut like one on the diagonal": lambda *x: tile(*x, cut=False).tril(),
        "a token does not see itself": strict_tile,
        "nothing decays": lambda rate, *others: tile(0 * rate, *others),
    },
)  # fmt: skip

# --- 7.4 ------------------------------------------------------------------------------------------

NAMES = ("b", "h", "n", "dk", "dv")


def left_products(draw):
    def make(draw, sizes, size=4):
        given = operands(draw, **sizes) | {"rate": draw.rates(sizes["h"]), "size": size}
        return given

    yield from in_all_shapes(draw, make, *NAMES)
    sizes = draw.sizes(*NAMES)
    for what, size in (("tiles of 1", 1), ("tiles of 6", 6), ("one tile for all", 40)):
        yield Case(in_words(what, sizes), make(draw, sizes, size))
    yield without_a_map(make(draw, LONG))
    even = sizes | {"n": 12}
    yield Case(in_words("blocks that fit exactly, of 4", even), make(draw, even))
    fast = make(draw, sizes) | {"rate": draw.uniform(sizes["h"], low=800, high=900)}
    yield Case(in_words("heads that forget at once (rates above 800)", sizes), fast)
    still = make(draw, sizes)
    still["rate"] = some_do_not_decay(still["rate"])
    yield Case(in_words("a head that does not decay", sizes), still)


def left_product(q, k, v, rate, size, *, visit=lambda i, count: range(i + 1), mask=tile, add=True):
    """Lightning Attention 1; each option is one thing that can be got wrong."""
    n, outputs = q.shape[2], []
    count = math.ceil(n / size)
    for i in range(count):
        rows = span(i, size, n)
        o = v.new_zeros(*v.shape[:2], len(rows), v.shape[3])
        for j in visit(i, count):
            columns = span(j, size, n)
            score = q[:, :, rows] @ k[:, :, columns].mT * mask(rate, i, j, size, n)
            o = o * add + score @ v[:, :, columns]
        outputs.append(o)
    return torch.cat(outputs, dim=2)


def without_last_block(q, k, v, rate, size):
    o = left_product(q, k, v, rate, size)
    whole = q.shape[2] // size * size
    return torch.cat([o[:, :, :whole], 0 * o[:, :, whole:]], dim=2)


def left_product_row_by_row(q, k, v, rate, size):
    rows = []
    for t in range(q.shape[2]):
        left = torch.exp(-rate[:, None] * torch.arange(t, -1, -1).to(rate.dtype))
        score = torch.einsum("b h d, b h s d -> b h s", q[:, :, t], k[:, :, : t + 1]) * left
        rows.append(torch.einsum("b h s, b h s e -> b h e", score, v[:, :, : t + 1]))
    return torch.stack(rows, dim=2)


left_product_exercise = Exercise(
    number="7.4", title="The left product in tiles", level=3, worth=4, minutes=25,
    needs="lesson 07, section 4, and 7.3",
    function="left_product",
    returns={"o": "text head token value"},
    reference=lambda q, k, v, rate, size: linear_attention(
        q, k, v, rate, "chunked", chunk_size=size
    ),
    finished=OPERATORS,
    cases=left_products,
    answers={
        "tile by tile": left_product,
        "row by row": left_product_row_by_row,
    },
    mistakes={
        "the map of all tokens was made at once: it should be only as large as a tile": (
            lambda q, k, v, rate, size: (q @ k.mT * decay_mask(rate, q.shape[2])) @ v
        ),
        "the tile on the diagonal is left out": partial(
            left_product, visit=lambda i, count: range(i)
        ),
        "only the tile on the diagonal is there: the others were skipped or written over": partial(
            left_product, add=False
        ),
        "the tiles above the diagonal were visited, and count as much": partial(
            left_product, visit=lambda i, count: range(count), mask=partial(tile, cut=False)
        ),
        "the future gets in where the rate is 0: cut by t - s, not by r (t - s)": partial(
            left_product, mask=cut_by_product
        ),
        "exponents of the future overflow, and are hidden too late: their gradient is no number": (
            partial(left_product, mask=hidden_too_late)
        ),
        "each tile decays as if it lay on the diagonal": partial(
            left_product, mask=lambda rate, i, j, size, n: (
                tile(rate, i, j, size, n, rows=local_span, columns=local_span)
            )
        ),
        "between tiles nothing decays": partial(
            left_product, mask=lambda rate, i, j, size, n: tile(rate, i, j, size, n) if i == j
            else torch.ones_like(tile(rate, i, j, size, n))
        ),
        "the newest token is decayed as well": partial(
            left_product, mask=partial(tile, shift=1)
        ),
        "every tile was cut like one on the diagonal": partial(
            left_product, mask=lambda *x: tile(*x, cut=False).tril()
        ),
        "a token does not see itself": partial(left_product, mask=strict_tile),
        "the last block, which is shorter, is left out": without_last_block,
        "the rate was taken for λ": lambda q, k, v, rate, size: left_product(
            q, k, v, -rate.log(), size
        ),
        "the scores are divided by √d, which linear attention does not do": (
            lambda q, *others: left_product(q / math.sqrt(q.shape[-1]), *others)
        ),
        "q and k are swapped": lambda q, k, *others: left_product(k, q, *others),
        "nothing decays": lambda q, k, v, rate, size: left_product(q, k, v, 0 * rate, size),
        "all heads decay like the first": lambda q, k, v, rate, size: left_product(
            q, k, v, rate[:1].expand_as(rate), size
        ),
    },
)  # fmt: skip

EXERCISES = [roofline, bytes_exercise, mask_tile, left_product_exercise]
QUESTIONS = [
    Question(
        number="7.5", title="Faster on paper", level=2, worth=3, minutes=10,
        needs="lesson 07, sections 3 to 5",
    ),
]  # fmt: skip
