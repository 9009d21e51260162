"""Exercises of lesson 15: side by side, shards, four bits by hand, and GPTQ."""

from bisect import bisect_right
from functools import partial
from itertools import accumulate

import torch

from transnormer_edu.exercises.exercise import Case, Exercise, Question
from transnormer_edu.exercises.lesson_10 import block, mixers
from transnormer_edu.gptq import unpack
from transnormer_edu.norm import srmsnorm

# --- 15.1 -----------------------------------------------------------------------------------------


def side_by_side(x, mix, channels):
    y = srmsnorm(x)
    return x + mix(y) + channels(y)


parallel = Exercise(
    number="15.1", title="Side by side", level=1, worth=1, minutes=5,
    needs="lesson 15, section 2",
    function="parallel_block",
    returns={"y": "text token feature"},
    reference=side_by_side,
    cases=mixers,
    answers={
        "a sum over mixers": lambda x, *parts: sum((part(srmsnorm(x)) for part in parts), x),
        "a difference of two blocks": lambda x, mix, channels: (
            block(x, mix, lambda y: 0) + block(x, lambda y: 0, channels) - x
        ),
    },
    mistakes={
        "this is the first series: the second mixer reads what the first has written": block,
        "this is the first series, with the mixers swapped": lambda x, mix, channels: block(
            x, channels, mix
        ),
        "x was not added": lambda x, *parts: sum(part(srmsnorm(x)) for part in parts),
        "x was added twice, once for each mixer": lambda x, *parts: (
            x + side_by_side(x, *parts)
        ),
        "the norm is missing": lambda x, *parts: sum((part(x) for part in parts), x),
        "the channel mixer reads x without its norm": lambda x, mix, channels: (
            x + mix(srmsnorm(x)) + channels(x)
        ),
        "the token mixer reads x without its norm": lambda x, mix, channels: (
            x + mix(x) + channels(srmsnorm(x))
        ),
        "the normed x was added, not x": lambda x, *parts: sum(
            (part(srmsnorm(x)) for part in parts), srmsnorm(x)
        ),
        "what the mixers give was normed": lambda x, *parts: sum(
            (srmsnorm(part(srmsnorm(x))) for part in parts), x
        ),
        "the channel mixer reads what the token mixer gives, without x": (
            lambda x, mix, channels: x + channels(srmsnorm(mix(srmsnorm(x))))
        ),
        "the two mixers were multiplied, not added": lambda x, mix, channels: (
            x + mix(srmsnorm(x)) * channels(srmsnorm(x))
        ),
        "the channel mixer is left out": lambda x, mix, channels: x + mix(srmsnorm(x)),
        "the token mixer is left out": lambda x, mix, channels: x + channels(srmsnorm(x)),
    },
)  # fmt: skip

# --- 15.2 -----------------------------------------------------------------------------------------


def folders(draw):
    for n in (17, 9):
        sizes = [draw.random.randint(3, 40) for _ in range(n)]
        yield Case(f"With {n} tensors", {"sizes": sizes, "limit": draw.random.randint(45, 70)})
    yield Case("With files that are exactly full", {"sizes": [5, 7, 4, 8, 12, 6], "limit": 12})
    yield Case(
        "With a tensor larger than a file should be", {"sizes": [5, 31, 4, 9, 3], "limit": 20}
    )
    yield Case("With such a tensor first", {"sizes": [50, 2, 3, 40, 1], "limit": 20})
    yield Case("With two such tensors in a row", {"sizes": [31, 31, 4], "limit": 20})
    yield Case("With room left in an earlier file", {"sizes": [8, 15, 2, 4, 13, 1], "limit": 16})
    yield Case("With one tensor", {"sizes": [7], "limit": 9})


def files(sizes, limit, *, full=0, first=0, alone=True, opened=False):
    """One file after the other; each option is one thing that can be got wrong."""
    number, used, found = first, 0, []
    for size in sizes:
        if used + size > limit - full and (used or opened):
            number, used = number + 1, 0
        used = used + size if alone or size <= limit else 0
        found.append(number)
    return torch.tensor(found)


def files_by_looking_ahead(sizes, limit):
    """How many tensors fit, from each file's first one on."""
    ends, found, start = list(accumulate(sizes)), [], 0
    while start < len(sizes):
        room = limit + (ends[start - 1] if start else 0)
        stop = max(bisect_right(ends, room), start + 1)
        found += [found[-1] + 1 if found else 0] * (stop - start)
        start = stop
    return torch.tensor(found)


def files_by_splitting(sizes, limit):
    """The first file, then the rest in the same way."""
    count = next((i for i in range(1, len(sizes)) if sum(sizes[: i + 1]) > limit), len(sizes))
    here = torch.zeros(count, dtype=torch.long)
    rest = sizes[count:]
    return torch.cat([here, files_by_splitting(rest, limit) + 1]) if rest else here


def first_that_has_room(sizes, limit):
    used, found = [], []
    for size in sizes:
        fits = (i for i, held in enumerate(used) if held + size <= limit)
        place = next(fits, len(used))
        used[place:] = [size] if place == len(used) else [used[place] + size, *used[place + 1 :]]
        found.append(place)
    return torch.tensor(found)


def closed_when_over(sizes, limit):
    number, used, found = 0, 0, []
    for size in sizes:
        found.append(number)
        used += size
        if used > limit:
            number, used = number + 1, 0
    return torch.tensor(found)


shards = Exercise(
    number="15.2", title="Which file?", level=2, worth=2, minutes=12,
    needs="lesson 15, section 1",
    function="shard_of",
    returns={"file": "tensor"},
    reference=files,
    cases=folders,
    answers={"looking ahead": files_by_looking_ahead, "file by file": files_by_splitting},
    mistakes={
        "a file that is exactly full is allowed": partial(files, full=1),
        "files are counted from 1": partial(files, first=1),
        "a file was closed when it was over the limit already": closed_when_over,
        "the first file is empty where the first tensor is too large": partial(files, opened=True),
        "a tensor that is too large was not counted: others went into its file": partial(
            files, alone=False
        ),
        "a gap in an earlier file was filled: tensors stay in their order": first_that_has_room,
        "the bytes of all files were counted on, not those of this one": lambda sizes, limit: (
            torch.tensor([(end - 1) // limit for end in accumulate(sizes)])
        ),
        "every tensor has a file of its own": lambda sizes, limit: torch.arange(len(sizes)),
        "the last number came back: one is asked for each tensor": lambda sizes, limit: (
            files(sizes, limit)[-1]
        ),
    },
    gradients=False,
)  # fmt: skip

# --- 15.3 -----------------------------------------------------------------------------------------


def stored(draw):
    def make(inputs, outputs, groups, dtype=torch.float64, shuffled=True):
        def levels(*shape, top):
            """Eight levels in an int32, from 0 to top."""
            drawn = torch.randint(top + 1, (*shape, 8), generator=draw.generator)
            return (drawn << torch.arange(0, 32, 4)).sum(-1).to(torch.int32)

        size = -(-inputs // groups)
        g_idx = torch.arange(inputs, dtype=torch.int32) // size
        order = torch.randperm(inputs, generator=draw.generator)
        return {
            "qweight": levels(inputs // 8, outputs, top=15),
            "qzeros": levels(groups, outputs // 8, top=14),  # a stored 15 is read in two ways
            "scales": draw.uniform(groups, outputs, low=0.01, high=0.3, dtype=dtype),
            "g_idx": g_idx[order] if shuffled else g_idx,
        }

    yield Case("With 24 inputs, 16 outputs, 3 groups in any order", make(24, 16, 3))
    yield Case("With other numbers", make(24, 16, 3))
    yield Case("With groups that lie together", make(40, 24, 5, shuffled=False))
    yield Case("With one group", make(16, 32, 1))
    yield Case("With eight inputs and eight outputs", make(8, 8, 2))
    yield Case("With a last group that is smaller", make(32, 8, 3, shuffled=False))
    yield Case("In float32", make(16, 24, 4, dtype=torch.float32))


def weights(
    qweight, qzeros, scales, g_idx, *, one=1, read=unpack, read_zeros=None, level=lambda x: x,
    group=lambda g, groups: g.long(), sign=1, zero_scaled=True,
):  # fmt: skip
    """W (out, in); each option is one thing that can be got wrong."""
    levels = level(read(qweight.T, 4))
    zeros = (read_zeros or read)(qzeros, 4) + one
    place = group(g_idx, len(scales))
    scale, zero = scales[place].T, zeros[place].T
    if not zero_scaled:
        return scale * levels - zero
    return sign * scale * (levels - zero).to(scales.dtype)


def weights_one_by_one(qweight, qzeros, scales, g_idx):
    """Bit by bit, with Python's whole numbers."""
    inputs, outputs = len(g_idx), qweight.shape[1]
    W = torch.empty(outputs, inputs, dtype=scales.dtype)
    packed, zeros = qweight.tolist(), qzeros.tolist()
    for i, g in enumerate(g_idx.tolist()):
        for o in range(outputs):
            level = packed[i // 8][o] // 16 ** (i % 8) % 16
            zero = zeros[g][o // 8] // 16 ** (o % 8) % 16 + 1
            W[o, i] = scales[g, o] * (level - zero)
    return W


def weights_by_bytes(qweight, qzeros, scales, g_idx):
    """Memory as it lies: a byte has two levels, the lower one first."""

    def nibbles(packed):
        split = packed.flatten().view(torch.uint8).int()
        return torch.stack([split % 16, split // 16], -1).reshape(len(packed), -1)

    levels, zeros = nibbles(qweight.T).T, nibbles(qzeros) + 1
    g = g_idx.long()
    return (scales[g] * (levels - zeros[g])).T.contiguous()


def highest_first(packed, bits):
    return unpack(packed, bits).unflatten(1, (-1, 8)).flip(-1).flatten(1)


def towards_zero(packed, bits):
    power = 16 ** torch.arange(8)
    whole = torch.div(packed[..., None].long(), power, rounding_mode="trunc")
    return torch.fmod(whole, 16).flatten(1)


def one_zero_for_eight(packed, bits):
    return (packed & 15).repeat_interleave(8, dim=1)


def spread_over_outputs(qweight, qzeros, scales, g_idx):
    levels = unpack(qweight, 4).reshape(len(g_idx), -1)
    zeros, g = unpack(qzeros, 4) + 1, g_idx.long()
    return (scales[g] * (levels - zeros[g])).T


dequantise = Exercise(
    number="15.3", title="Four bits by hand", level=2, worth=4, minutes=25,
    needs="lesson 15, section 3",
    function="weights_of",
    returns={"W": "output input"},
    reference=weights,
    finished={"unpack", "QuantLinear"},
    cases=stored,
    answers={"one by one": weights_one_by_one, "by bytes": weights_by_bytes},
    mistakes={
        "the 1 is missing: the zero is stored as zero - 1": partial(weights, one=0),
        "1 was taken away from the stored zero, not added": partial(weights, one=-1),
        "the first level was read from the highest bits: it is in the lowest": partial(
            weights, read=highest_first
        ),
        "numbers with a minus were divided towards 0, which loses bits: shift them": partial(
            weights, read=towards_zero
        ),
        "the eight levels of a number belong to neighbouring inputs, not outputs": (
            spread_over_outputs
        ),
        "one zero was read for eight outputs: each has its own 4 bits": partial(
            weights, read_zeros=one_zero_for_eight
        ),
        "g_idx was not used: neighbouring inputs were put into one group": partial(
            weights, group=lambda g, groups: torch.arange(len(g)) // -(-len(g) // groups)
        ),
        "all inputs were put into the first group": partial(
            weights, group=lambda g, groups: 0 * g.long()
        ),
        "levels were taken for numbers from -8 to 7": partial(
            weights, level=lambda x: (x + 8) % 16 - 8
        ),
        "the sign is turned round: it is level - zero": partial(weights, sign=-1),
        "the zero was taken away after the scale: it is a level too": partial(
            weights, zero_scaled=False
        ),
        "rows are inputs here: the matrix should be turned, as nn.Linear has it": (
            lambda *stored: weights(*stored).T
        ),
    },
)  # fmt: skip

# --- 15.4 -----------------------------------------------------------------------------------------


def matrices(draw):
    def make(outputs, inputs, mixed=3, noise=0.3):
        sources = draw.normal(60, mixed) @ draw.normal(mixed, inputs)
        X = sources + noise * draw.normal(60, inputs)
        return {
            "W": draw.normal(outputs, inputs),
            "H": X.mT @ X,
            "scale": draw.uniform(outputs, low=0.3, high=0.9),
        }

    for outputs, inputs in ((5, 11), (7, 12)):
        yield Case(f"With {inputs} inputs, {outputs} outputs", make(outputs, inputs))
    yield Case("With inputs that hardly depend on each other", make(9, 6, noise=2.0))
    yield Case("With inputs that are nearly one", make(6, 8, mixed=1, noise=0.1))
    yield Case("With a single output", make(1, 13))
    yield Case("With a single input", make(4, 1))
    many = make(5, 7)
    yield Case("With steps so fine that there are many of them", many | {"W": 20 * many["W"]})
    free = make(5, 4)
    yield Case(
        "With inputs that do not depend on each other", free | {"H": 3 * torch.eye(4).double()}
    )


def nearest(W, scale):
    return scale[:, None] * (W / scale[:, None]).round()


def upper(H):
    """U with UᵀU = H⁻¹."""
    return torch.linalg.cholesky(torch.linalg.inv(H), upper=True)


def gptq(
    W, H, scale, *, factor=upper, sign=-1, divide=True, first=False, last=None, whole=True,
    order=1,
):  # fmt: skip
    """Column by column; each option is one thing that can be got wrong."""
    U, left, Q = factor(H), W.clone(), torch.empty_like(W)
    for i in range(W.shape[1])[::order]:
        Q[:, i] = nearest(left[:, i : i + 1], scale)[:, 0]
        error = (W if first else left)[:, i] - Q[:, i]
        error = error / U[i, i] if divide else error
        stop = i + 1 + last if last else W.shape[1]
        left[:, i + 1 : stop] += sign * error[:, None] * U[i, i + 1 : stop]
    return Q if whole else left


def gptq_by_solving(W, H, scale):
    """After each column: where are the others best, given its error? Their own H says."""
    left, Q = W.clone(), []
    for i in range(W.shape[1]):
        Q.append(nearest(left[:, i : i + 1], scale))
        rest = slice(i + 1, None)
        if i + 1 < W.shape[1]:
            share = torch.linalg.solve(H[rest, rest], H[rest, i])
            left[:, rest] += (left[:, i : i + 1] - Q[-1]) * share
    return torch.cat(Q, dim=1)


def gptq_by_shrinking(W, H, scale):
    """With the inverse of H, from which each finished input is taken out."""
    inverse, left, done = torch.linalg.inv(H), W, []
    while left.shape[1]:
        done.append(nearest(left[:, :1], scale))
        row = inverse[0] / inverse[0, 0]
        left = (left - (left[:, :1] - done[-1]) * row)[:, 1:]
        inverse = (inverse - torch.outer(inverse[:, 0], row))[1:, 1:]
    return torch.cat(done, dim=1)


def gptq_in_place(W, H, scale):
    return W.copy_(gptq(W, H, scale))


gptq_exercise = Exercise(
    number="15.4", title="GPTQ", level=3, worth=4, minutes=25,
    needs="lesson 15, section 4",
    function="gptq",
    returns={"Q": "output input"},
    reference=gptq,
    finished={"quantised"},
    cases=matrices,
    answers={"by solving": gptq_by_solving, "with a shrinking inverse": gptq_by_shrinking},
    mistakes={
        "nothing was made up for: this is rounding to the nearest, or U has nothing to the right": (
            lambda W, H, scale: nearest(W, scale)
        ),
        "errors were added to the others: they are to be made up for": partial(gptq, sign=1),
        "the error was not divided by U_ii": partial(gptq, divide=False),
        "the factor is that of H, not of its inverse": partial(
            gptq, factor=lambda H: torch.linalg.cholesky(H, upper=True)
        ),
        "H stands where U belongs": partial(gptq, factor=lambda H: H),
        "the inverse of H stands where its factor belongs: finished inputs must leave it": partial(
            gptq, factor=torch.linalg.inv
        ),
        "the lower factor of H was turned, which is its upper one: H⁻¹ has another": partial(
            gptq, factor=lambda H: torch.linalg.inv(torch.linalg.cholesky(H, upper=True))
        ),
        "the error was taken of the weight as it was, not of what it has become": partial(
            gptq, first=True
        ),
        "only the next input makes up for the error": partial(gptq, last=1),
        "the weights came back as they were before rounding": partial(gptq, whole=False),
        "all outputs have the scale of the first": lambda W, H, scale: gptq(
            W, H, scale[:1].expand_as(scale)
        ),
        "these are levels, not weights: the scale is missing": lambda W, H, scale: (
            gptq(W, H, scale) / scale[:, None]
        ).round(),
        "the weights that were given are written over": gptq_in_place,
    },
    gradients=False,
)  # fmt: skip

EXERCISES = [parallel, shards, dequantise, gptq_exercise]
QUESTIONS = [
    Question(
        number="15.5", title="It writes well", level=2, worth=3, minutes=10,
        needs="lesson 15, sections 1, 2 and 5",
    ),
]  # fmt: skip
