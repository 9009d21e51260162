"""What one process of a mesh sends in one update, counted before anything is built.

    weights       all-gather       each block's in bfloat16, forward and again backward
    gradients     reduce-scatter   all in float32
    outputs       all-reduce       each mixer's (tokens, d) in bfloat16, once each way
    squares       all-reduce       for the norm over all heads: one float32 number per token and
                                   block, once each way
    words         all-reduce       embedding, loss and its gradient in x, where words are divided
    thin gates    all-gather       (tokens, r) of a gate of rank r; reduce-scatter of its gradient
    states        send             (b, H / T, dk, dv) in float32, once each way, whatever the length

As in messages.py a message is as large as the tensor that it is about. Recomputing sends again what
a forward sends.
"""

from typing import NamedTuple

from transnormer_edu.parallel.memory import Job, state_bytes


class Message(NamedTuple):
    """What is sent, by which operation, and how many bytes of it in one update."""

    what: str
    operation: str
    bytes: int


def messages(job: Job) -> list[Message]:
    """All that a process sends in one update, with the states passed on as a ring.

    Counted for one that has neighbours on both sides in the sequence.
    """
    whole, thin = _thin_gate(job)
    outputs, squares, words = _sums(job)
    return [
        Message("weights", "all-gather", _weights(job)),
        Message("gradients", "reduce-scatter", _gradients(job)),
        Message("outputs", "all-reduce", outputs),
        Message("squares", "all-reduce", squares),
        Message("words", "all-reduce", words),
        Message("thin gates", "all-gather", whole),
        Message("thin gates", "reduce-scatter", thin),
        Message("states", "send", _states(job)),
    ]


def sent(job: Job) -> dict[str, int]:
    """Operation -> bytes: `messages` added up."""
    found = {}
    for message in messages(job):
        found[message.operation] = found.get(message.operation, 0) + message.bytes
    return {operation: size for operation, size in found.items() if size}


def _padded_angles(job):
    """FSDP divides them by heads, and fills up where there are fewer heads than processes."""
    heads = job.config.heads // job.shape.tensor
    return -(-heads // job.shards) * job.shards * job.config.head_dim * len(job.config.lrpe_layers)


def _weights(job):
    """Forward and backward; angles twice each time, for q and for k; the words once."""
    if job.shards == 1:
        return 0
    blocks = 2 * job.matrices * job.config.layers
    return 2 * blocks + 2 * 2 * 4 * _padded_angles(job) + 4 * job.embedding


def _gradients(job):
    if job.shards == 1:
        return 0
    return 4 * (job.embedding + job.matrices * job.config.layers + _padded_angles(job))


def _sums(job):
    """Over the tensor ranks; over all others only the loss and the number of its labels."""
    totals = 8 + 4
    if job.shape.tensor == 1:
        return 0, 0, totals
    row = job.config.dim * job.tokens
    # Recomputing stops before the last sum of a block: nothing that is kept depends on it.
    outputs = (5 if job.recompute else 4) * 2 * row
    squares = (3 if job.recompute else 2) * 4 * job.tokens
    words = 2 * 4 * row + 3 * 4 * job.tokens
    return job.config.layers * outputs, job.config.layers * squares, words + totals


def _thin_gate(job):
    """A gate of some rank r: its (tokens, r) is whole everywhere, its gradient's sum is shared."""
    if job.shape.tensor == 1 or not isinstance(job.config.gate, int):
        return 0, 0
    each = 2 * job.config.gate * job.tokens * job.config.layers
    return each * (2 if job.recompute else 1), each


def _states(job):
    ranks = job.shape.sequence
    each = sum(state_bytes(job, layer) for layer in range(job.config.layers))
    forwards = 2 if job.recompute else 1
    return 0 if ranks == 1 else each * (forwards + (ranks > 2))
