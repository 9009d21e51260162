"""The layer with few bits calls the kernel, and only where that can serve it."""

import copy

import pytest
import torch

from transnormer_edu import TransNormerConfig, TransNormerLLM, gptq, lightning
from transnormer_edu.decoder import Decoder
from transnormer_edu.quantise import quantise, quantised

from .conftest import ANYWHERE, BOUND, ONLY_GPU
from .reference import error

kernels = pytest.importorskip("transnormer_kernels")


@pytest.fixture
def calls(monkeypatch):
    """The shapes with which the layer calls the kernel, as it does on a GPU."""
    seen = []

    def product(x, *rest):
        seen.append(tuple(x.shape))
        return kernels.few_bit_product(x, *rest)

    monkeypatch.setattr(lightning, "_kernels", lambda: Spy(product))
    return seen


class Spy:
    def __init__(self, few_bit_product):
        self.few_bit_product = few_bit_product


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(lightning, "_on_gpu", lambda x: x.dtype in lightning.KERNEL_DTYPES)


def layer_of(form, inputs=48, outputs=32, device="cpu"):
    h = torch.randn(3 * inputs, inputs, dtype=torch.float64)
    return quantised(torch.randn(outputs, inputs), form, h.T @ h).to(device)


@pytest.mark.parametrize("bits, group_size", [(4, 16), (4, -1), (2, 16), (8, 4)])
@pytest.mark.parametrize("desc_act", [False, True])
@ANYWHERE
def test_the_layer_calls_it(device, dtype, bits, group_size, desc_act, calls, as_on_a_gpu):
    layer = layer_of(gptq.GPTQFormat(bits, group_size, desc_act), device=device)
    before = {name: t.clone() for name, t in layer.state_dict().items()}
    for shape in ((48,), (1, 48), (2, 5, 48)):
        x = torch.randn(shape, device=device)
        assert error(layer(x), x.double() @ layer.weight(torch.float64).T) <= 1e-5
        assert calls.pop() == shape
    stored = layer.state_dict()
    assert stored.keys() == before.keys()  # the sorted copy is not saved
    assert all(torch.equal(t, before[name]) for name, t in stored.items())


def test_new_numbers_in_a_layer_are_used(calls, as_on_a_gpu):
    form, x = gptq.GPTQFormat(4, 16, desc_act=True), torch.randn(1, 48)
    layer, other = layer_of(form), layer_of(form)
    old, wanted = layer(x), x @ other.weight().T
    assert error(old, wanted) > 0.1
    layer.load_state_dict(other.state_dict())
    assert error(layer(x), wanted) <= 1e-5
    layer.qweight, layer.g_idx = layer.qweight.clone(), layer.g_idx.flip(0)
    assert error(layer(x), x @ layer.weight().T) <= 1e-5
    assert len(calls) == 3


def test_what_it_cannot_do_is_done_with_the_whole_matrix(calls, as_on_a_gpu):
    layer, x = layer_of(gptq.GPTQFormat(4, 16)), torch.randn(2, 48)
    x.requires_grad_()
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight().sum(0).expand_as(x))
    assert layer.double()(x.detach().double()).dtype == torch.float64
    with torch.no_grad():
        layer.float()(torch.randn(1, 2049, 48))  # of so many rows W is soon unpacked
    mixed = layer_of(gptq.GPTQFormat(4, 12))  # an int32 holds levels of two groups
    with torch.no_grad():
        torch.testing.assert_close(mixed(x), x @ mixed.weight().T)
    assert not calls


def test_on_a_cpu_it_is_not_called(calls):
    layer_of(gptq.GPTQFormat(4, 16))(torch.randn(1, 48))
    assert not calls


def test_rows_of_the_wrong_width_are_refused(calls, as_on_a_gpu):
    layer = layer_of(gptq.GPTQFormat(4, 16))
    with pytest.raises(ValueError, match=r"qweight has shape \(6, 32\); \(5, any\) was expected"):
        layer(torch.randn(1, 40))


@pytest.mark.parametrize("desc_act", [False, True])
@ONLY_GPU
def test_a_quantised_model_reads_and_decodes(device, dtype, desc_act):
    """Against itself in float64, where the whole matrices are made; also in a CUDA graph."""
    config = TransNormerConfig(vocab_size=64, dim=256, layers=2, heads=2, glu_dim=384)
    ids = torch.randint(3, 64, (2, 33))
    small = quantise(TransNormerLLM(config), gptq.GPTQFormat(4, 64, desc_act), ids)
    wide, fast = copy.deepcopy(small).double(), copy.deepcopy(small).to(device, dtype)
    with torch.no_grad():
        expected = wide(ids)
        logits, state = fast(ids[:, :-1].to(device), return_state=True)
        last = Decoder(fast, state)(ids[:, -1].to(device))
    bound = 4 * BOUND[dtype] * expected.abs().max()
    assert (logits.cpu() - expected[:, :-1]).abs().max() <= bound
    assert (last.cpu() - expected[:, -1]).abs().max() <= bound
