"""Exercises of lesson 10: embedding and head, a block, the dearer twin, writing with a state."""

import math
from functools import partial

import torch

from transnormer_edu.exercises.exercise import Case, Exercise, Question
from transnormer_edu.norm import srmsnorm

# --- 10.1 -----------------------------------------------------------------------------------------


def tables(draw):
    def make(b=3, n=7, vocab=11, d=5, scale=1.0, dtype=torch.float64):
        ids = torch.randint(vocab, (b, n), generator=draw.generator)
        return {"ids": ids, "E": scale * draw.normal(vocab, d, dtype=dtype)}

    yield Case("With b=3, n=7, V=11, d=5", make())
    yield Case("With other numbers", make())
    yield Case("With one text, a single token", make(b=1, n=1))
    yield Case("With an embedding so small that ε counts", make(scale=1e-3, d=6))
    padding = make()
    padding["E"][0], padding["ids"][:, :2] = 0, 0
    yield Case("With padding, whose row is zero", padding)
    yield Case("In float32", make(dtype=torch.float32))


def echo(ids, E, *, scale=math.sqrt, normed=srmsnorm, head=lambda E: E):
    return normed(scale(E.shape[1]) * E[ids]) @ head(E).T


def echo_row_by_row(ids, E):
    table = math.sqrt(E.shape[1]) * E
    rho = torch.rsqrt(table.square().mean(1, keepdim=True) + 1e-6)
    return ((table * rho) @ E.T)[ids]


head = Exercise(
    number="10.1", title="A model without blocks", level=1, worth=2, minutes=8,
    needs="lesson 10, section 1",
    function="echo",
    returns={"z": "text token vocabulary"},
    reference=echo,
    cases=tables,
    answers={
        "once for each row of the table": echo_row_by_row,
        "with one-hot vectors": lambda ids, E: srmsnorm(
            torch.nn.functional.one_hot(ids, len(E)).to(E.dtype) @ E * E.shape[1] ** 0.5
        ) @ E.T,
    },
    mistakes={
        "the norm before the head is missing": partial(echo, normed=lambda x: x),
        "the factor √d is missing: where ε counts, one sees it": partial(echo, scale=lambda d: 1.0),
        "the factor is d, not √d": partial(echo, scale=lambda d: d),
        "these are probabilities, not logits": lambda ids, E: echo(ids, E).softmax(-1),
        "the head was normed too": partial(echo, head=srmsnorm),
        "the head was multiplied by √d as well": partial(
            echo, head=lambda E: math.sqrt(E.shape[1]) * E
        ),
        "the logits were normed, not what the head reads": lambda ids, E: srmsnorm(
            math.sqrt(E.shape[1]) * E[ids] @ E.T
        ),
        "it was divided by √d, not multiplied": partial(echo, scale=lambda d: d**-0.5),
    },
)  # fmt: skip

# --- 10.2 -----------------------------------------------------------------------------------------


def mixers(draw):
    for what, b, n, d, dtype in (
        ("two mixers", 2, 7, 5, torch.float64), ("a single token", 3, 1, 4, torch.float64),
        ("one text", 1, 6, 3, torch.float64), ("inputs in float32", 2, 5, 3, torch.float32),
    ):  # fmt: skip
        W, U = (draw.normal(d, d, dtype=dtype) for _ in range(2))

        def token_mixer(x, W=W):
            return torch.tanh(x @ W).cumsum(1)

        def channel_mixer(x, U=U):
            return (x @ U) * x

        inputs = {"x": 2 * draw.normal(b, n, d, dtype=dtype) + 1}
        inputs |= {"token_mixer": token_mixer, "channel_mixer": channel_mixer}
        yield Case(f"With {what} (b={b}, n={n}, d={d})", inputs)


def block(x, token_mixer, channel_mixer):
    x = x + token_mixer(srmsnorm(x))
    return x + channel_mixer(srmsnorm(x))


def block_as_a_loop(x, *parts):
    for mixer in parts:
        x = x + mixer(srmsnorm(x))
    return x


def block_of_corrections(x, token_mixer, channel_mixer):
    first = token_mixer(srmsnorm(x))
    second = channel_mixer(srmsnorm(first + x))
    return first + second + x


block_exercise = Exercise(
    number="10.2", title="A block", level=2, worth=2, minutes=8,
    needs="lesson 10, section 3, and lesson 06",
    function="block",
    returns={"y": "text token feature"},
    reference=block,
    cases=mixers,
    answers={"one mixer after the other": block_as_a_loop, "corrections": block_of_corrections},
    mistakes={
        "x was not added: a mixer writes a correction": lambda x, mix, channels: channels(
            srmsnorm(mix(srmsnorm(x)))
        ),
        "after the first mixer x was not added": lambda x, mix, channels: block(
            mix(srmsnorm(x)), lambda y: 0, channels
        ),
        "after the second mixer x was not added": lambda x, mix, channels: channels(
            srmsnorm(x + mix(srmsnorm(x)))
        ),
        "both mixers read the same x: the second reads what the first has written": (
            lambda x, mix, channels: x + mix(srmsnorm(x)) + channels(srmsnorm(x))
        ),
        "the norms are missing": lambda x, mix, channels: (
            x + mix(x) + channels(x + mix(x))
        ),
        "the norm before the second mixer is missing": lambda x, mix, channels: (
            x + mix(srmsnorm(x)) + channels(x + mix(srmsnorm(x)))
        ),
        "the norms stand after the mixers, not before": lambda x, mix, channels: (
            x + srmsnorm(mix(x)) + srmsnorm(channels(x + srmsnorm(mix(x))))
        ),
        "the sums were normed: x goes straight on": lambda x, mix, channels: srmsnorm(
            srmsnorm(x + mix(x)) + channels(srmsnorm(x + mix(x)))
        ),
        "the mixers are swapped": lambda x, mix, channels: block(x, channels, mix),
        "the normed x was added, not x": lambda x, mix, channels: block(srmsnorm(x), mix, channels),
    },
)  # fmt: skip

# --- 10.3 -----------------------------------------------------------------------------------------


def widths(draw):
    odd, even = 2 * draw.random.randrange(3, 20) + 1, 2 * draw.random.randrange(5, 20)
    for d, dh in ((4096, 128), (8 * even, even), (96, 24), (3 * odd, odd), (odd, odd)):
        yield Case(f"With d={d}, d_h={dh}", {"d": d, "head_dim": dh})


def dearer(d, head_dim, *, gate=2, state=4, map_=4, first=1):
    """Least n with map_ n d > gate d^2 + state d head_dim."""
    return (gate * d + state * head_dim) // map_ + first


def dearer_by_trying(d, head_dim):
    n = 1
    while 2 * 4 * d**2 + 4 * n * d <= 2 * 5 * d**2 + 4 * d * head_dim:
        n += 1
    return n


twin = Exercise(
    number="10.3", title="The dearer twin", level=1, worth=2, minutes=10,
    needs="lesson 10, section 8",
    function="twin_is_dearer_from",
    returns={"n": ""},
    reference=dearer,
    cases=widths,
    answers={
        "by trying": dearer_by_trying,
        "by solving": lambda d, head_dim: math.floor(d / 2 + head_dim) + 1,
    },
    mistakes={
        "at this n both cost the same, or the twin less: it should cost more": partial(
            dearer, first=0
        ),
        "the gate of TransNormerLLM was left out": partial(dearer, gate=0),
        "the state of TransNormerLLM was left out": partial(dearer, state=0),
        "the gate was counted with one operation, not two": partial(dearer, gate=1),
        "the twin reads keys and values: two products, not one": partial(dearer, map_=2),
        "the state is written and read: two products, not one": partial(dearer, state=2),
    },
    gradients=False,
)  # fmt: skip

# --- 10.4 -----------------------------------------------------------------------------------------


def writers(draw):
    for what, start, new in (
        ("a prompt of 5 tokens", 5, 6), ("a single token", 1, 4), ("one new token", 7, 1),
        ("a long text", 3, 25),
    ):  # fmt: skip
        d, vocab = 8, 31
        A, B, C = 0.5 * draw.normal(d, d), draw.normal(vocab, d), draw.normal(d, vocab)

        def step(token, state, A=A, B=B, C=C, d=d):
            state = torch.zeros(d, dtype=A.dtype) if state is None else state
            state = torch.tanh(state @ A + B[int(token)])
            return state @ C, state

        prompt = torch.randint(vocab, (start,), generator=draw.generator).tolist()
        yield Case(f"With {what}", {"step": step, "prompt": prompt, "new": new})

    follows = draw.random.sample(range(vocab), vocab)

    def every_token(token, state):
        place = follows.index(int(token))
        logits = torch.zeros(vocab, dtype=torch.float64)
        logits[follows[(place + 1) % vocab]] = 1
        return logits, 1 if state is None else state + 1

    inputs = {"step": every_token, "prompt": [vocab - 1], "new": vocab}
    yield Case("With a text in which every token comes", inputs)


def write(step, prompt, new, *, feed=lambda prompt: prompt, choose=lambda z: int(z.argmax())):
    state = None
    for token in feed(prompt):
        logits, state = step(token, state)
    tokens = []
    for _ in range(new):
        tokens.append(choose(logits))
        logits, state = step(tokens[-1], state)
    return torch.tensor(tokens)


def write_from_the_start(step, prompt, new):
    """Without keeping a state: the whole text again for each token."""
    text = list(prompt)
    for _ in range(new):
        state = None
        for token in text:
            logits, state = step(token, state)
        text.append(int(logits.argmax()))
    return torch.tensor(text[len(prompt) :])


def write_one_queue(step, prompt, new):
    text, state, read = list(prompt), None, 0
    while len(text) < len(prompt) + new:
        logits, state = step(text[read], state)
        read += 1
        if read == len(text):
            text.append(logits.argmax().item())
    return torch.tensor(text[-new:])


def forgets_the_state(step, prompt, new):
    state, tokens = None, []
    for token in prompt:
        logits, state = step(token, state)
    for _ in range(new):
        tokens.append(int(logits.argmax()))
        logits, _ = step(tokens[-1], None)
    return torch.tensor(tokens)


def never_moves_on(step, prompt, new):
    """Steps from the state after the prompt, each time."""
    state, tokens = None, []
    for token in prompt:
        logits, state = step(token, state)
    for _ in range(new):
        tokens.append(int(logits.argmax()))
        logits, _ = step(tokens[-1], state)
    return torch.tensor(tokens)


def stops_at_a_token(step, prompt, new, *, stop):
    tokens = write(step, prompt, new)
    ends = (tokens == stop).nonzero()
    return tokens[: int(ends[0]) + 1] if len(ends) else tokens


def last_token_twice(step, prompt, new):
    return write(step, [*prompt, prompt[-1]], new)


writing = Exercise(
    number="10.4", title="Writing with a state", level=3, worth=4, minutes=20,
    needs="lesson 10, section 9",
    function="write",
    returns={"tokens": "token"},
    reference=write_from_the_start,
    cases=writers,
    answers={"read once, then write": write, "one queue": write_one_queue},
    mistakes={
        "the prompt came back too": lambda step, prompt, new: torch.cat(
            [torch.tensor(prompt), write(step, prompt, new)]
        ),
        "the last token of the prompt was read twice": last_token_twice,
        "the state is forgotten after the prompt": forgets_the_state,
        "the state stays where the prompt has left it": never_moves_on,
        "only the last token of the prompt was read": partial(write, feed=lambda p: p[-1:]),
        "the prompt was read backwards": partial(write, feed=lambda p: p[::-1]),
        "the least likely token was taken": partial(write, choose=lambda z: int(z.argmin())),
        "the first new token is missing, and there is one more at the end": (
            lambda step, prompt, new: write(step, prompt, new + 1)[1:]
        ),
        "there is one token too few": lambda step, prompt, new: write(step, prompt, new)[:-1],
        "token 0 ended the text: here no token does": partial(stops_at_a_token, stop=0),
        "token 2 ended the text: here no token does": partial(stops_at_a_token, stop=2),
        "the second best token was taken": partial(
            write, choose=lambda z: int(z.topk(2).indices[1])
        ),
    },
    gradients=False,
)  # fmt: skip

EXERCISES = [head, block_exercise, twin, writing]
QUESTIONS = [
    Question(
        number="10.5", title="Where the parameters are", level=2, worth=3, minutes=10,
        needs="lesson 10, sections 7 and 9",
    ),
]  # fmt: skip
