"""Exercises of lesson 08: places in memory, and three kernels."""

from dataclasses import dataclass
from functools import partial
from importlib import import_module

import torch

from transnormer_edu.attention import linear_attention
from transnormer_edu.exercises.cases import in_words, operands
from transnormer_edu.exercises.exercise import Case, Exercise, Question
from transnormer_edu.exercises.kernel import run
from transnormer_edu.exercises.observe import Refused


@dataclass(frozen=True)
class Kernel:
    """A kernel of `kernels_08`, which needs Triton; with `fault` a wrong one."""

    name: str
    fault: str = ""

    def __getitem__(self, grid):
        kernel = getattr(import_module("transnormer_edu.exercises.kernels_08"), self.name)[grid]
        return partial(kernel, FAULT=self.fault) if self.fault else kernel

    def __call__(self, *arguments):
        raise RuntimeError("a kernel is launched on a grid: kernel[grid](...)")


def blocks(n: int, size: int) -> int:
    return -(-n // size)


def tile(n: int, least: int = 1) -> int:
    """The next power of two."""
    return max(1 << (n - 1).bit_length(), least)


# --- 8.1 ------------------------------------------------------------------------------------------


def layouts(draw):
    def make(what, order):
        b, h, n, d = (draw.sizes("b", "h", "n", "d", least=3)[name] for name in "bhnd")
        wide = {"b": b, "h": h, "t": n, "i": d}
        steps, step = {}, 1
        for axis in reversed(order):
            steps[axis], step = step, step * wide[axis]
        inputs = {
            "first_id": draw.random.randrange(h + 1, b * h),
            "second_id": draw.random.randrange(1, 4),
            "t": draw.random.randrange(1, n), "heads": h, "width": draw.random.choice((2, 4, 8)),
            "strides": tuple(steps[axis] for axis in "bhti"),
        }  # fmt: skip
        return Case(what, inputs)

    yield make("With texts, heads, tokens, features in this order", "bhti")
    yield make("With heads behind tokens, as a layer computes them", "bthi")
    yield make("With the features first of all", "ibht")
    first = make("", "bhti").inputs | {"first_id": 0, "second_id": 0, "t": 0}
    yield Case("With the first program and token 0", first)
    one = make("", "bhti").inputs | {"heads": 1, "first_id": 2}
    yield Case("With one head", one)


def place(
    first_id, second_id, t, heads, width, strides, *, split=divmod, column=lambda s, w: s * w,
    order=(0, 1, 2, 3),
):  # fmt: skip
    b, h = split(first_id, heads)
    where = (b, h, t, column(second_id, width))
    return sum(where[i] * strides[j] for i, j in enumerate(order))


def place_by_walking(first_id, second_id, t, heads, width, strides):
    """Strides added up, one step at a time."""
    at = 0
    for number in range(first_id):  # from program to program
        last_head = number % heads == heads - 1
        at += strides[0] - (heads - 1) * strides[1] if last_head else strides[1]
    return at + sum([strides[2]] * t) + sum([strides[3]] * second_id * width)


places = Exercise(
    number="8.1", title="Where does it begin?", level=1, worth=1, minutes=8,
    needs="lesson 08, sections 1 and 4",
    function="place_of_tile",
    returns={"place": ""},
    reference=place,
    cases=layouts,
    answers={
        "step by step": place_by_walking,
        "as a product": lambda first, second, t, heads, width, strides: int(
            torch.tensor([first // heads, first % heads, t, second * width])
            @ torch.tensor(strides)
        ),
    },
    mistakes={
        "text and head are swapped: neighbouring programs have neighbouring heads": partial(
            place, split=lambda p, heads: (p % heads, p // heads)
        ),
        "the first id was taken for the head alone": partial(
            place, split=lambda p, heads: (0, p)
        ),
        "the first id was taken for the text alone": partial(
            place, split=lambda p, heads: (p, 0)
        ),
        "the slice was not multiplied by its width": partial(place, column=lambda s, w: s),
        "the slice is left out": partial(place, column=lambda s, w: 0),
        "the strides of heads and tokens are swapped": partial(place, order=(0, 2, 1, 3)),
        "the strides are in the opposite order": partial(place, order=(3, 2, 1, 0)),
        "features were taken to lie side by side: they have a stride too": (
            lambda first, second, t, heads, width, strides: place(
                first, second, t, heads, width, (*strides[:3], 1)
            )
        ),
        "the token is left out": lambda first, second, t, *others: place(
            first, second, 0, *others
        ),
    },
    gradients=False,
)  # fmt: skip

# --- 8.2 ------------------------------------------------------------------------------------------

TILE = 4, 8


def matrices(draw):
    def make(n, d, rate=None, tile=TILE):
        rate = draw.random.uniform(0.1, 0.6) if rate is None else rate
        return {"x": draw.normal(n, d, dtype=torch.float32), "rate": rate, "tile": tile}

    ragged = draw.random.choice((5, 6, 7)), draw.random.choice((11, 13, 14))
    yield Case("With n={}, d={}".format(*ragged), make(*ragged))
    yield Case("With tiles that come out even (n=8, d=16)", make(8, 16))
    yield Case("With rows that do not come out even (n=9, d=8)", make(9, 8))
    yield Case("With columns that do not come out even (n=8, d=19)", make(8, 19))
    yield Case("With a single number", make(1, 1))
    yield Case("With one row (n=1, d=10)", make(1, 10))
    yield Case("With rate 0 (n=6, d=9)", make(6, 9, 0.0))
    yield Case("With n=11, d=19, ROWS=8, COLS=16", make(11, 19, tile=(8, 16)))


def faded(x, rate, tile):
    t = torch.arange(len(x), dtype=torch.float64)
    return (x * torch.exp(-rate * t)[:, None]).float()


def launch_fade(kernel, x, rate, tile):
    (n, d), (rows, cols) = x.shape, tile
    return run(kernel, (blocks(n, rows), blocks(d, cols)), {"x": x}, {"y": (n, d)}, rate, n, d,
               ROWS=rows, COLS=cols)  # fmt: skip


def of(name: str, faults: dict[str, str]) -> dict:
    """{what one says of it: fault} as kernels."""
    return {said: Kernel(name, fault) for said, fault in faults.items()}


fade = Exercise(
    number="8.2", title="A kernel that fades", level=2, worth=2, minutes=15,
    needs="lesson 08, sections 1 and 2",
    function="fade_kernel",
    returns={"y": "token feature"},
    reference=faded,
    cases=matrices,
    answers={
        "a tile at once": Kernel("fade"),
        "row by row": Kernel("fade_row_by_row"),
        "a tile as one row": Kernel("fade_place_by_place"),
    },
    mistakes=of("fade", {
        "there is no mask at all": "no mask",
        "rows beyond the last one are stored too: mask them": "no mask of rows",
        "columns beyond the last one are stored too, into the next row: mask them": (
            "no mask of columns"
        ),
        "rows are as long as a tile here: a row has d numbers": "long as a tile",
        "tiles have 4 rows here, whatever ROWS is": "four rows",
        "tiles have 8 columns here, whatever COLS is": "eight columns",
        "the two ids are swapped: the first one counts blocks of rows": "ids swapped",
        "all programs have the first block of columns": "one block of columns",
        "t is counted in the block, not in the text": "age in the block",
        "it fades along the columns": "columns",
        "t is counted from 1: row 0 does not fade": "late",
        "the sign is turned round: it grows": "grows",
        "the rate was taken for λ": "rate for λ",
        "it fades in a straight line, 1 - rt": "line",
        "nothing fades": "nothing",
    }),
    gradients=False,
    launch=launch_fade,
)  # fmt: skip

# --- 8.3 ------------------------------------------------------------------------------------------


def heads_of(draw, sizes, rate=None):
    h, n, dk, dv = sizes.values()
    given = operands(draw, 1, h, n, dk, dv)
    given = {name: x[0].float() for name, x in given.items()}
    return given | {
        "state": draw.normal(h, dk, dv, dtype=torch.float32),
        "rate": draw.rates(h, dtype=torch.float32) if rate is None else torch.tensor(rate),
    }


def walks(draw):
    dk, dv = draw.random.sample((3, 5, 6, 7), 2)
    sizes = {"h": 2, "n": draw.random.choice((4, 8, 9)), "dk": dk, "dv": dv}
    for what, change in (
        ("", {}), ("a single token", {"n": 1, "h": 4}), ("one head", {"h": 1, "n": 6}),
        ("sizes that fill their tiles", {"n": 3, "dk": 8, "dv": 4}),
        ("keys of one number", {"n": 3, "dk": 1}), ("wide values", {"n": 2, "h": 3, "dv": 17}),
    ):  # fmt: skip
        here = sizes | change
        yield Case(in_words(what, here), heads_of(draw, here))
    few = sizes | {"n": 5}
    yield Case(in_words("a head that does not decay", few), heads_of(draw, few, [0.0, 0.4]))
    yield Case(in_words("a head that forgets at once", few), heads_of(draw, few, [0.3, 95.0]))


def in_steps(q, k, v, state, rate):
    q, k, v, state = (x[None].double() for x in (q, k, v, state))
    o, last = linear_attention(q, k, v, rate.double(), "recurrent", state=state, return_state=True)
    return o[0].float(), last[0].float()


def launch_carry(kernel, q, k, v, state, rate):
    (h, n, dk), dv = q.shape, v.shape[2]
    inputs = {"q": q, "k": k, "v": v, "state": state, "rate": rate}
    sizes = {"DK": dk, "DV": dv, "DK_TILE": tile(dk), "DV_TILE": tile(dv)}
    return run(kernel, (h,), inputs, {"o": (h, n, dv), "last": (h, dk, dv)}, n, **sizes)


carry = Exercise(
    number="8.3", title="A state in registers", level=2, worth=4, minutes=25,
    needs="lesson 08, section 2, and 8.2",
    function="carry_kernel",
    returns={"o": "head token value", "last": "head key value"},
    reference=in_steps,
    cases=walks,
    answers={
        "token by token": Kernel("carry"),
        "the state lies the other way": Kernel("carry_turned"),
        "every token looks back": Kernel("carry_unfaded"),
    },
    mistakes=of("carry", {
        "the newest token is decayed as well": "late",
        "a token reads the state before it has written into it": "read first",
        "the state holds the last token alone": "replaced",
        "nothing decays": "nothing",
        "the state grows: the sign of the rate is turned round": "grows",
        "the rate was taken for λ": "rate for λ",
        "all heads decay like the first": "first rate",
        "the state that was given is left out": "no state",
        "the state that was given is written over, and `last` is not written": "written over",
        "the last state was not stored": "not stored",
        "all programs do the first head": "one head",
        "all heads read the tokens of the first": "same head",
        "q and k are swapped": "swapped",
        "keys are read beyond their end: mask them": "keys not masked",
        "values are read and stored beyond their end: mask them": "values not masked",
        "all of the tile was stored as the last state: mask it": "whole state",
        "the state is read beyond its end: mask it": "all rows",
        "what a mask hides was added up: without `other=0.0` it may be any number": "no other",
    }),
    gradients=False,
    launch=launch_carry,
)  # fmt: skip

# --- 8.4 ------------------------------------------------------------------------------------------

CHUNK = 16


def texts(draw):
    dk, dv = draw.random.sample((9, 11, 13, 14), 2)
    sizes = {"h": 2, "n": draw.random.choice((19, 21, 22)), "dk": dk, "dv": dv}

    def make(change, rate=None):
        given = heads_of(draw, sizes | change, rate)
        given.pop("state")
        return given

    for what, change, rate in (
        ("", {}, None), ("a single token", {"n": 1}, None), ("one head", {"h": 1, "n": 41}, None),
        ("chunks that fit exactly", {"n": 32}, None),
        ("sizes that fill their tiles", {"n": 18, "dk": 32, "dv": 32}, None),
        ("a head that does not decay", {"n": 19}, [0.2, 0.0]),
        ("a head that forgets at once", {"n": 17}, [95.0, 0.3]),
    ):  # fmt: skip
        yield Case(in_words(what, sizes | change), make(change, rate))


def from_nothing(q, k, v, rate):
    return in_steps(q, k, v, torch.zeros(len(q), q.shape[2], v.shape[2]), rate)


def launch_chunks(kernel, q, k, v, rate):
    (h, n, dk), dv = q.shape, v.shape[2]
    inputs, results = {"q": q, "k": k, "v": v, "rate": rate}, {"o": (h, n, dv), "last": (h, dk, dv)}
    sizes = {"DK": dk, "DV": dv, "DK_TILE": tile(dk, 16), "DV_TILE": tile(dv, 16), "CHUNK": CHUNK}
    written = run(kernel, (h,), inputs, results, n, **sizes)
    if not _multiplies(kernel):
        raise Refused("it never calls tl.dot: in chunks, products of matrices do the work")
    return written


def _multiplies(kernel) -> bool:
    """Whether a kernel, or one that it calls, names `dot`; True for what has no code to look at."""
    if isinstance(kernel, Kernel):
        return kernel.name != "walk"
    function = getattr(kernel, "fn", kernel)
    code = getattr(function, "__code__", None)
    if code is None:
        return True
    known = (function.__globals__.get(name) for name in code.co_names)
    helpers = (helper for helper in known if hasattr(helper, "fn") and helper is not kernel)
    return "dot" in code.co_names or any(map(_multiplies, helpers))


chunks = Exercise(
    number="8.4", title="Lightning Attention in a kernel", level=3, worth=6, minutes=45,
    needs="lesson 08, sections 3 and 4, and 8.3",
    function="chunks_kernel",
    returns={"o": "head token value", "last": "head key value"},
    reference=from_nothing,
    cases=texts,
    answers={
        "chunk by chunk": Kernel("chunks"),
        "all lies the other way": Kernel("chunks_turned"),
    },
    mistakes={
        "there are no chunks: one token after the other": Kernel("walk"),
    } | of("chunks", {
        "a whole chunk passes at the end, where only a few tokens are left": "whole chunks",
        "beyond the last token the powers of λ grow, and infinity times 0 is no number": "grows",
        "the future gets in where the rate is 0: cut by t - s, not by r (t - s)": "cut by product",
        "inside a chunk the future is not cut off": "not cut",
        "inside a chunk nothing decays": "flat inside",
        "row j, counted from 0, reads the state with λ^j; it is λ^(j+1)": "since",
        "tokens enter the state one step too old: the last one of a chunk has age 0": "until",
        "tokens enter the state undecayed, however old": "undecayed",
        "the state does not fade from chunk to chunk": "no fading",
        "the state holds the last chunk alone": "replaced",
        "the state takes in the chunk before it is read": "twice",
        "the tokens before a chunk are left out": "only near",
        "the tokens of the chunk itself are left out": "only far",
        "nothing decays": "nothing",
        "all heads decay like the first": "first rate",
        "all heads read the tokens of the first": "same head",
        "q and k are swapped": "swapped",
        "rows beyond the last token are read: mask them": "rows not masked",
        "rows beyond the last token are stored: mask them": "stores all rows",
        "what a mask hides was added up: without `other=0.0` it may be any number": "no other",
        "keys have 16 places here, whatever DK_TILE is": "sixteen keys",
    }),
    gradients=False,
    launch=launch_chunks,
)  # fmt: skip

EXERCISES = [places, fade, carry, chunks]
QUESTIONS = [
    Question(
        number="8.5", title="Right, and refused", level=2, worth=3, minutes=10,
        needs="lesson 08, sections 3 and 5",
    ),
]  # fmt: skip
