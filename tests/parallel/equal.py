"""Run by torchrun: every mesh of these processes against one process, in float64.

Writes results.json: per mesh and case the largest differences, and what was sent.
"""

import json
import sys
from dataclasses import asdict
from functools import cache
from itertools import product
from math import prod

import torch
import torch.distributed as dist

from tests import models
from transnormer_edu.cross_entropy import IGNORED_LABEL
from transnormer_edu.parallel import MeshShape, MessageCounter, divide, make_mesh
from transnormer_edu.parallel.order import weights_as_released
from transnormer_edu.settings import TrainSettings
from transnormer_edu.train import make_optimizer

SIZES = dict(dim=18, layers=3, heads=4, hidden_dim=12, glu_dim=20, lrpe_layers=(0, 2))
CASES = {
    "plain": dict(),
    "thin gate, sinusoid, no decay": dict(gate=4, absolute_position=True, decay="none"),
    "mixers side by side, no gate": dict(block="parallel", gate="none"),
}
ROWS, TOKENS, STEPS = 4, 12, 5
SETTINGS = TrainSettings(weight_decay=0.1, learning_rate=1e-2, device="cpu")


def shapes(world):
    sizes = product(range(1, world + 1), repeat=3)
    return [MeshShape(*axes) for axes in sizes if prod(axes) == world]


def runs(world, every_case):
    """Shape, case and exchange: on every mesh the plain model, on some (or all) the others."""
    for shape in shapes(world):
        yield shape, "plain", "ring"
        if shape.sequence > 1:
            yield shape, "plain", "gather"
        if every_case or world == 2 or shape == MeshShape(sequence=2, tensor=2):
            yield from ((shape, case, "ring") for case in CASES if case != "plain")


def make(case):
    return models.linear(**SIZES | CASES[case])


def labels_of(ids):
    labels = ids.clone()
    labels[0, 3:7] = IGNORED_LABEL  # no label at all in a stretch of three tokens
    return labels


def steps(model, batches, rows):
    """Losses, first gradients, clipped norms and last weights of a few updates."""
    optimizer, losses, norms, grads = make_optimizer(model, SETTINGS), [], [], None
    for ids in batches:
        optimizer.zero_grad()
        loss = model(ids[rows], labels=labels_of(ids)[rows])
        loss.backward()
        if grads is None:
            grads = {name: whole(p.grad) for name, p in model.named_parameters()}
        norms.append(float(whole(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5))))
        optimizer.step()
        losses.append(loss.item())
    weights = {name: whole(p) for name, p in model.named_parameters()}
    return dict(losses=losses, norms=norms), grads, weights


def whole(x):
    return (x.full_tensor() if hasattr(x, "full_tensor") else x).detach().clone()


def named(tensors, config):
    """As the model in one process has them."""
    wrapped = "_checkpoint_wrapped_module."
    short = {n.removeprefix("model.").replace(wrapped, ""): x for n, x in tensors.items()}
    return weights_as_released(short, config)


def gap(a, b):
    assert a.keys() == b.keys(), a.keys() ^ b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@cache
def in_one_process(case):
    batches = [models.tokens(ROWS, TOKENS, seed=i) for i in range(STEPS)]
    model = make(case)
    return batches, model(batches[0]).detach(), steps(model, batches, slice(None))


def compare(case, shape, exchange, recompute):
    batches, logits, (expected, grads, weights) = in_one_process(case)
    mesh = make_mesh(shape)
    model = divide(make(case), mesh, exchange=exchange, recompute=recompute)
    size = ROWS // shape.data
    first = mesh.get_local_rank("data") * size
    rows = slice(first, first + size)
    with torch.no_grad():
        own = model(batches[0][rows])
    width = TOKENS // shape.sequence
    column = mesh.get_local_rank("sequence") * width
    found, own_grads, own_weights = steps(model, batches, rows)
    config = model.config
    result = dict(
        case=case, **asdict(shape), exchange=exchange, recompute=recompute,
        logits=float((own - logits[rows, column : column + width]).abs().max()),
        loss=max(abs(a - b) for a, b in zip(found["losses"], expected["losses"], strict=True)),
        norm=max(abs(a - b) for a, b in zip(found["norms"], expected["norms"], strict=True)),
        gradients=gap(named(own_grads, config), grads),
        weights=gap(named(own_weights, config), weights),
        at={axis: mesh.get_local_rank(axis) for axis in ("data", "sequence", "tensor")},
    )  # fmt: skip
    if case == "plain":
        result |= messages(model, batches[0][rows], torch.cat(batches[:2], dim=1)[rows])
    gathered = [None] * dist.get_world_size()
    dist.all_gather_object(gathered, result)
    return gathered


def messages(model, ids, longer):
    """What one pass there and back sends; the same for twice the length."""
    sent, more = MessageCounter(), MessageCounter()
    for counter, rows in ((more, longer), (sent, ids)):
        with counter:
            model(rows, labels=rows).backward()
    return {"sent": dict(sent.bytes), "times": dict(sent.times), "sent, longer": dict(more.bytes)}


def main(path, which=""):
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    results = []
    for shape, case, exchange in runs(dist.get_world_size(), which == "all"):
        recompute = case != "plain" or exchange != "ring"
        results.append(compare(case, shape, exchange, recompute))
    if dist.get_rank() == 0:
        with open(path, "w") as file:
            json.dump(results, file)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
