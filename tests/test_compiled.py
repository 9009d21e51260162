"""What is written otherwise for the compiler says the same: losses, gradients, decoded logits.

The tracer alone is used, which any machine has: what a GPU runs is made of the graphs it finds.
"""

from functools import partial

import jaxtyping
import pytest
import torch

from tests.models import linear, softmax, tokens
from transnormer_edu.decoder import Decoder


@pytest.fixture(autouse=True)
def no_shape_checks():
    """The tracer would have to follow them."""
    jaxtyping.config.update("jaxtyping_disable", True)
    torch.compiler.reset()
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def gradients(model, ids):
    loss = model(ids, labels=ids)
    return loss, *torch.autograd.grad(loss, list(model.parameters()))


@pytest.mark.parametrize("build", [linear, softmax])
def test_training_has_the_same_loss_and_gradients(build):
    model, ids = build(), tokens(2, 19)
    expected = gradients(model, ids)
    graphs = []
    back_end = _counted(graphs)
    for block in model.model["layers"]:
        block.compile(dynamic=False, backend=back_end)
    for got, want in zip(gradients(model, ids), expected, strict=True):
        torch.testing.assert_close(got, want)
    assert 1 <= len(graphs) <= 2  # one for all blocks alike: with LRPE and without


def test_the_residual_stream_is_not_kept_for_the_norms():
    """Of what a norm is given, nothing is kept; of the norm's result, the result itself is."""
    norm = linear().model["final_norm"]
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        x = torch.randn(3, 5, 18, dtype=torch.float64, requires_grad=True)
        y = torch.compile(norm, backend="aot_eager_decomp_partition")(x)
    y.sum().backward()
    assert not any(x.shape == k.shape and torch.equal(x, k) for k in kept)
    assert any(y.shape == k.shape and torch.equal(y, k) for k in kept)


@torch.no_grad()
def test_decoding_in_compiled_parts_is_reading(monkeypatch):
    graphs, compile = [], torch.compile
    traced = partial(compile, backend=_counted(graphs))
    monkeypatch.setattr(torch, "compile", traced)
    model, ids = linear(), tokens(9, 20)
    _, state = model.next_token(ids[:, :9])
    decoder = Decoder(model, state, compiled=True)
    decoded = torch.stack([decoder(token).clone() for token in ids[:, 9:].unbind(1)], dim=1)
    torch.testing.assert_close(decoded, model(ids)[:, 9:])
    assert 2 <= len(graphs) <= 4  # before and after, with LRPE and without


def _counted(graphs):
    """The tracer as a back end that also says how many graphs it was given."""

    def back_end(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.lookup_backend("aot_eager_decomp_partition")(graph, inputs)

    return back_end
