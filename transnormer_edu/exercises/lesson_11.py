"""Exercises of lesson 11: bits per byte, the loss, the schedule, clipping, and AdamW."""

import math
from functools import partial

import torch
import torch.nn.functional as F

from transnormer_edu.exercises.exercise import Case, Exercise, Question
from transnormer_edu.settings import TrainSettings

# --- 11.1 -----------------------------------------------------------------------------------------


def texts(draw):
    for n, text in ((5, "the cat sat"), (9, "eine Tür, größer als λ"), (1, "§"), (3, "5 € 🙂")):
        p = draw.uniform(n, low=0.01, high=0.9)
        yield Case(f"With {n} tokens of {len(text.encode())} bytes", {"p": p, "text": text})
    paper = torch.tensor([1 / 2, 1 / 4, 1 / 8]).double()
    yield Case("With the lesson's three tokens", {"p": paper, "text": "the cat sat"})
    long = draw.uniform(500, low=0.01, high=0.1)
    yield Case("With 500 tokens, whose product does not fit", {"p": long, "text": 90 * "a cat, "})
    for power, how in ((12, "10⁻¹²"), (40, "10⁻⁴⁰")):
        rare = torch.tensor([0.3, 10.0**-power, 0.2], dtype=torch.float64)
        yield Case(f"With a rare token, of probability {how}", {"p": rare, "text": "a ocelot"})
    ends = {"p": draw.uniform(4, low=0.01, high=0.9), "text": " the cat sat \n\n"}
    yield Case("With a text that ends in white space", ends)


def bits(p, text, *, log=torch.log2, by=lambda p, text: len(text.encode())):
    return float(-log(p).sum() / by(p, text))


bits_per_byte = Exercise(
    number="11.1", title="Bits per byte", level=1, worth=1, minutes=6,
    needs="lesson 11, section 1",
    function="bits_per_byte",
    returns={"bits": ""},
    reference=bits,
    cases=texts,
    answers={
        "token by token": lambda p, text: (
            sum(-math.log2(x) for x in p.tolist()) / len(bytes(text, "utf-8"))
        ),
        "by way of nats": lambda p, text: (
            (-p.log().sum() / math.log(2) / len(text.encode())).item()
        ),
    },
    mistakes={
        "these are nats, not bits: the logarithm is to base 2": partial(bits, log=torch.log),
        "the logarithm is to base 10": partial(bits, log=torch.log10),
        "it was divided by the tokens, not by the bytes": partial(bits, by=lambda p, text: len(p)),
        "letters were counted, not bytes: λ and § have two": partial(
            bits, by=lambda p, text: len(text)
        ),
        "the sign is turned round": lambda p, text: -bits(p, text),
        "it was not divided by the bytes": partial(bits, by=lambda p, text: 1),
        "the probabilities were multiplied first: of a long text that is 0": lambda p, text: float(
            -torch.log2(p.prod()) / len(text.encode())
        ),
        "small probabilities were cut off": lambda p, text: bits(p.clamp(min=1e-9), text),
        "something was added to the probabilities": lambda p, text: bits(p + 1e-9, text),
        "white space at the ends was not counted": lambda p, text: bits(p, text.strip()),
        "the mean probability was taken first, and then its logarithm": lambda p, text: float(
            -torch.log2(p.mean()) * len(p) / len(text.encode())
        ),
    },
    gradients=False,
)  # fmt: skip

# --- 11.2 -----------------------------------------------------------------------------------------


def batches(draw):
    def make(b, n, vocab, scale=1.0, out=(), dtype=torch.float64):
        labels = torch.randint(vocab, (b, n), generator=draw.generator)
        for row, token in out:
            labels[row, token] = -100
        return {"logits": (scale * draw.normal(b, n, vocab)).to(dtype), "labels": labels}

    yield Case("With b=3, n=11, V=7", make(3, 11, 7))
    yield Case("With other numbers", make(3, 11, 7))
    padding = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (2, 6), (2, 10)]
    yield Case("With labels -100, which are left out", make(3, 11, 7, out=padding))
    yield Case("With one text, n=2", make(1, 2, 5))
    yield Case("With logits in the thousands", make(2, 5, 6, scale=900))
    yield Case("In float32", make(2, 5, 6, dtype=torch.float32))


def loss(logits, labels, *, shift=1, base=1.0):
    here = logits[:, : logits.shape[1] - shift]
    return F.cross_entropy(here.flatten(0, 1), labels[:, shift:].flatten()) / base


def loss_by_log_softmax(logits, labels):
    log_p, following = logits[:, :-1].log_softmax(-1), labels[:, 1:]
    counted = following != -100
    cost = -log_p.gather(-1, following.clamp(min=0)[..., None])[..., 0]
    return torch.where(counted, cost, 0.0).sum() / counted.sum()


def loss_token_by_token(logits, labels):
    costs = []
    for z_row, row in zip(logits, labels, strict=True):
        for z, true in zip(z_row[:-1], row[1:].tolist(), strict=True):
            if true != -100:
                costs.append(torch.logsumexp(z, 0) - z[true])
    return torch.stack(costs).mean()


def mean_of_means(logits, labels):
    rows = [loss(z[None], row[None]) for z, row in zip(logits, labels, strict=True)]
    return torch.stack(rows).mean()


def ignored_in_the_mean(logits, labels):
    following = labels[:, 1:]
    counted = (following != -100).sum()
    return loss(logits, labels) * counted / following.numel()


def ignored_as_token_0(logits, labels):
    return loss(logits, labels.clamp(min=0))


def exponentials_first(logits, labels):
    p = logits.exp() / logits.exp().sum(-1, keepdim=True)
    following = labels[:, 1:]
    counted = following != -100
    cost = -p[:, :-1].gather(-1, following.clamp(min=0)[..., None])[..., 0].log()
    return torch.where(counted, cost, 0.0).sum() / counted.sum()


next_token = Exercise(
    number="11.2", title="The loss of the next token", level=2, worth=3, minutes=15,
    needs="lesson 11, section 1",
    function="next_token_loss",
    returns={"loss": ""},
    reference=loss,
    cases=batches,
    answers={"from the logarithms": loss_by_log_softmax, "token by token": loss_token_by_token},
    mistakes={
        "nothing was shifted: each token foretells itself": partial(loss, shift=0),
        "it was shifted by two tokens": lambda logits, labels: (
            F.cross_entropy(logits[:, :-2].flatten(0, 1), labels[:, 2:].flatten())
        ),
        "it was shifted the wrong way: each token foretells the one before": (
            lambda logits, labels: F.cross_entropy(
                logits[:, 1:].flatten(0, 1), labels[:, :-1].flatten()
            )
        ),
        "tokens that are left out still count in the number that is divided by": (
            ignored_in_the_mean
        ),
        "-100 was taken for token 0": ignored_as_token_0,
        "the mean was taken in each text first, so tokens of short texts count more": mean_of_means,
        "these are bits, not nats": partial(loss, base=math.log(2)),
        "the costs were summed, not averaged": lambda logits, labels: F.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum"
        ),
        "large logits overflow: subtract the largest, or use log_softmax": exponentials_first,
        "the softmax was applied twice": lambda logits, labels: loss(logits.softmax(-1), labels),
        "the logits were averaged as they are, without a softmax": lambda logits, labels: (
            F.nll_loss(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        ),
    },
)  # fmt: skip

# --- 11.3 -----------------------------------------------------------------------------------------


def plans(draw):
    for step in (1, 7, 20, 21, 150, 299, 300):
        plan = {"step": step, "steps": 300, "warmup": 20, "peak": draw.random.uniform(0.001, 0.1)}
        yield Case(f"With step {step} of 300, warm-up 20", plan)
    for step in (20, 21):
        plan = {"step": step, "steps": 21, "warmup": 20, "peak": 0.03}
        yield Case(f"With step {step} of 21, warm-up 20", plan)
    for step in (1, 5):
        plan = {"step": step, "steps": 40, "warmup": 0, "peak": 0.02}
        yield Case(f"With step {step} of 40, without warm-up", plan)
    plan = {"step": 1, "steps": 1000, "warmup": 100, "peak": 0.03}
    yield Case("With step 1 of 1000, warm-up 100", plan)


def half_cosine(x):
    return (1 + math.cos(math.pi * x)) / 2


def rate(step, steps, warmup, peak, *, late=0, least=0.05, wave=half_cosine, start=None):
    if step + late <= warmup:
        return peak * (step + late) / warmup
    begin = warmup if start is None else start
    done = (step + late - begin) / (steps - begin)
    return peak * (least + (1 - least) * wave(done))


def rate_of_settings(step, steps, warmup, peak):
    return TrainSettings(steps=steps, warmup=warmup, learning_rate=peak).rate_at(step)


schedule = Exercise(
    number="11.3", title="The plan of the learning rate", level=1, worth=2, minutes=10,
    needs="lesson 11, section 3",
    function="rate_at",
    returns={"rate": ""},
    reference=rate_of_settings,
    finished={"TrainSettings"},
    cases=plans,
    answers={
        "formula (6)": rate,
        "by a sine": lambda step, steps, warmup, peak: (
            peak * step / warmup if step <= warmup else peak
            * (1 - 0.95 * math.sin(math.pi / 2 * (step - warmup) / (steps - warmup)) ** 2)
        ),
    },
    mistakes={
        "steps are counted from 0: the first has the rate 0": partial(rate, late=-1),
        "it falls to 0, not to a twentieth": partial(rate, least=0.0),
        "it falls in a straight line, not along a cosine": partial(rate, wave=lambda x: 1 - x),
        "this is a whole cosine: at the end it is up again": partial(
            rate, wave=lambda x: (1 + math.cos(2 * math.pi * x)) / 2
        ),
        "the cosine begins at step 0, not where the warm-up ends": partial(rate, start=0),
        "the 0.95 is missing: the plan jumps when the warm-up ends": (
            lambda step, steps, warmup, peak: rate(step, steps, warmup, peak)
            if step <= warmup
            else rate(step, steps, warmup, peak, least=0.0) + 0.05 * peak
        ),
        "there is no warm-up": lambda step, steps, warmup, peak: (
            peak if step <= warmup else rate(step, steps, warmup, peak)
        ),
        "the fall got at least two steps, where one can be all": (
            lambda step, steps, warmup, peak: rate(step, max(steps, warmup + 2), warmup, peak)
        ),
        "the fall was cut off at a twentieth, not stretched to end there": (
            lambda step, steps, warmup, peak: max(
                rate(step, steps, warmup, peak, least=0.0), 0.05 * peak * (step > warmup)
            )
        ),
        "it falls to 0.05, not to a twentieth of the peak": lambda step, steps, warmup, peak: (
            rate(step, steps, warmup, peak, least=0.05 / peak)
        ),
        "it falls while it is warmed up: the two were multiplied": (
            lambda step, steps, warmup, peak: rate(step, steps, 0, peak)
            * (min(step / warmup, 1) if warmup else 1)
        ),
        "the peak is left out": lambda step, steps, warmup, peak: rate(step, steps, warmup, 1.0),
        "it never falls": lambda step, steps, warmup, peak: (
            rate(step, steps, warmup, peak) if step <= warmup else peak
        ),
    },
    gradients=False,
)  # fmt: skip

# --- 11.4 -----------------------------------------------------------------------------------------


def two_gradients(draw):
    def make(one, other, limit=1.3, dtype=torch.float64):
        g, h = one * draw.normal(3, 5, dtype=dtype), other * draw.normal(7, dtype=dtype)
        return {"g": g, "h": h, "limit": limit}

    yield Case("With a gradient that is too long", make(2, 3))
    yield Case("With one that is short enough", make(0.02, 0.1))
    yield Case("With a short tensor beside a long one", make(0.01, 4))
    halves = {"g": torch.full((4,), 0.5).double(), "h": torch.full((2, 2), -0.45).double()}
    yield Case("With two tensors that are too long only together", halves | {"limit": 1.1})
    yield Case("With a gradient of zeros", make(0, 0))
    yield Case("With a small limit", make(1, 1, limit=0.07))
    yield Case("With a length and a limit below 1", make(0.05, 0.1, limit=0.02))
    yield Case("With a length below a limit below 1", make(0.01, 0.02, limit=0.6))
    yield Case("In float32", make(3, 2, dtype=torch.float32))


def length_of(*tensors):
    return torch.sqrt(sum(x.square().sum() for x in tensors))


def clip(g, h, limit, *, length=length_of, factor=lambda length, c: min(1.0, c / max(length, c))):
    f = factor(float(length(g, h)), limit)
    return f * g, f * h


def clip_as_one_row(g, h, limit):
    row = torch.cat([g.flatten(), h.flatten()])
    row = row * torch.clamp(limit / row.norm(), max=1.0) if row.any() else row
    return row[: g.numel()].reshape(g.shape), row[g.numel() :].reshape(h.shape)


clipping = Exercise(
    number="11.4", title="Clipping", level=2, worth=2, minutes=10,
    needs="lesson 11, section 3",
    function="clip",
    returns={"g": "", "h": ""},
    reference=clip,
    cases=two_gradients,
    answers={
        "as one row": clip_as_one_row,
        "only where it is needed": lambda g, h, limit: (
            (g, h) if length_of(g, h) <= limit
            else (g * (limit / length_of(g, h)), h * (limit / length_of(g, h)))
        ),
    },
    mistakes={
        "each tensor was clipped by itself, which turns the direction": lambda g, h, limit: (
            clip(g, 0 * h, limit)[0], clip(0 * g, h, limit)[1]
        ),
        "each number was clipped by itself, which turns the direction": lambda g, h, limit: (
            g.clamp(-limit, limit), h.clamp(-limit, limit)
        ),
        "a short gradient was made longer": partial(
            clip, factor=lambda length, c: c / length if length else 1.0
        ),
        "the square of the length was taken: the root is missing": partial(
            clip, length=lambda *x: length_of(*x) ** 2
        ),
        "the largest number was taken for the length": partial(
            clip, length=lambda *x: max(part.abs().max() for part in x)
        ),
        "the sizes were added for the length": partial(
            clip, length=lambda *x: sum(part.abs().sum() for part in x)
        ),
        "the lengths of the two tensors were added": partial(
            clip, length=lambda g, h: length_of(g) + length_of(h)
        ),
        "it was clipped where the length is above 1, not above the limit": partial(
            clip, factor=lambda length, c: c / length if length > 1 else 1.0
        ),
        "nothing was clipped": lambda g, h, limit: (1.0 * g, 1.0 * h),
        "a long gradient got the length 1, where it should have that of the limit": partial(
            clip, factor=lambda length, c: 1 / length if length > c else 1.0
        ),
    },
    gradients=False,
)  # fmt: skip

# --- 11.5 -----------------------------------------------------------------------------------------


def updates(draw):
    def make(step, shape=(3, 5), scale=1.0, dtype=torch.float64):
        w, g, m = (draw.normal(*shape, dtype=dtype) for _ in range(3))
        given = {"w": w, "g": scale * g, "m": 0.3 * scale * m, "v": (0.5 * scale * m) ** 2}
        if step == 1:
            given |= {"m": torch.zeros_like(m), "v": torch.zeros_like(m)}
        return given | {"step": step, "lr": draw.random.uniform(0.001, 0.02)}

    yield Case("With the first step, where the means are 0", make(1))
    yield Case("With step 2", make(2))
    yield Case("With step 500", make(500, (7,)))
    yield Case("With gradients so small that ε counts", make(3, scale=1e-8))
    still = make(4) | {"g": torch.zeros(3, 5).double()}
    yield Case("With a gradient of 0: the means still move", still)
    yield Case("In float32", make(9, dtype=torch.float32))


B1, B2, EPSILON, DECAY = 0.9, 0.95, 1e-8, 0.1


def adamw(
    w, g, m, v, step, lr, *, b1=B1, b2=B2, decay=DECAY, correct=True, under_root=False, root=True,
    sign=-1, late=0, into_gradient=False,
):  # fmt: skip
    """One update; each option is one thing that can be got wrong."""
    if into_gradient:
        g = g + decay * w
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    t = step + late
    m_hat, v_hat = (m / (1 - b1**t), v / (1 - b2**t)) if correct else (m, v)
    size = v_hat if not root else (v_hat + EPSILON).sqrt() if under_root else v_hat.sqrt()
    move = m_hat / (size if under_root else size + EPSILON)
    kept = w if into_gradient else w * (1 - lr * decay)
    return kept + sign * lr * move, m, v


def pytorch_adamw(w, g, m, v, step, lr):
    parameter = torch.nn.Parameter(w.clone())
    parameter.grad = g.clone()
    optimiser = torch.optim.AdamW(
        [parameter], lr=lr, betas=(B1, B2), eps=EPSILON, weight_decay=DECAY, foreach=False
    )
    count = torch.tensor(float(step - 1))
    optimiser.state[parameter] = {"step": count, "exp_avg": m.clone(), "exp_avg_sq": v.clone()}
    optimiser.step()
    state = optimiser.state[parameter]
    return parameter.detach(), state["exp_avg"], state["exp_avg_sq"]


def adamw_in_place(w, g, m, v, step, lr):
    w_new, m_new, v_new = adamw(w, g, m, v, step, lr)
    return w.copy_(w_new), m.copy_(m_new), v.copy_(v_new)


optimiser = Exercise(
    number="11.5", title="A step of AdamW", level=3, worth=4, minutes=25,
    needs="lesson 11, section 3",
    function="adamw_step",
    returns={"w": "", "m": "", "v": ""},
    reference=adamw,
    cases=updates,
    answers={
        "PyTorch's": pytorch_adamw,
        "differences": lambda w, g, m, v, step, lr: (
            w - lr * DECAY * w - lr * ((m + (1 - B1) * (g - m)) / (1 - B1**step))
            / (torch.sqrt((v + (1 - B2) * (g * g - v)) / (1 - B2**step)) + EPSILON),
            m + (1 - B1) * (g - m),
            v + (1 - B2) * (g * g - v),
        ),
    },
    mistakes={
        "the means are not corrected for having begun at 0": partial(adamw, correct=False),
        "steps are counted from 0, so one correction too many": partial(adamw, late=1),
        "weight decay was added to the gradient: that is Adam, not AdamW": partial(
            adamw, into_gradient=True
        ),
        "weight decay is left out": partial(adamw, decay=0.0),
        "weight decay was not multiplied with the learning rate": lambda w, g, m, v, step, lr: (
            adamw(w, g, m, v, step, lr, decay=DECAY / lr)
        ),
        "the root is missing: it is divided by the mean square": partial(adamw, root=False),
        "ε stands under the root": partial(adamw, under_root=True),
        "β₁ and β₂ are swapped": partial(adamw, b1=B2, b2=B1),
        "the weights went up the slope, not down": partial(adamw, sign=1),
        "the old weights, means or gradients were written over": adamw_in_place,
        "the corrected means came back, and would be corrected again": (
            lambda w, g, m, v, step, lr: (
                adamw(w, g, m, v, step, lr)[0],
                adamw(w, g, m, v, step, lr)[1] / (1 - B1**step),
                adamw(w, g, m, v, step, lr)[2] / (1 - B2**step),
            )
        ),
    },
    gradients=False,
)  # fmt: skip

EXERCISES = [bits_per_byte, next_token, schedule, clipping, optimiser]
QUESTIONS = [
    Question(
        number="11.6", title="A loss that is too good", level=2, worth=3, minutes=10,
        needs="lesson 11, sections 2 and 3",
    ),
]  # fmt: skip
