"""Token after token with the state in place: the logits of reading everything at once."""

import pytest
import torch

from tests.models import linear, thin_gate, tokens
from transnormer_edu.decoder import Decoder
from transnormer_edu.model import State

MODELS = {
    "released": linear,
    "parallel blocks, no gate": lambda: linear(block="parallel", gate="none"),
    "thin gate, absolute": thin_gate,
    "wide heads, layer norm": lambda: linear(hidden_dim=30, norm="layernorm"),
}
ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@torch.no_grad()
def decoded(model, ids, read, compiled=False, mask=None):
    """The logits of all tokens after the first `read`, one by one."""
    _, state = model.next_token(ids[:, :read], mask)
    decoder = Decoder(model, state, compiled)
    return torch.stack([decoder(token).clone() for token in ids[:, read:].unbind(1)], dim=1)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("rows, read, n", [(1, 1, 9), (3, 17, 30), (2, 130, 140)])
def test_one_by_one_is_all_at_once(name, rows, read, n):
    model, ids = MODELS[name](), tokens(rows, n)
    torch.testing.assert_close(decoded(model, ids, read), model(ids)[:, read:].detach())


def test_long_after_the_prompt_it_has_lost_nothing():
    model, ids = linear(), tokens(1, 700)
    torch.testing.assert_close(decoded(model, ids, 3)[:, -5:], model(ids)[:, -5:].detach())


def test_rows_of_unequal_length_go_on_each_from_its_own_place():
    """LRPE would show a wrong position: the padded row has read 4 tokens, the other 9."""
    model, ids = linear(), tokens(2, 15)
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[0, 4:] = False  # padding on the right
    together = decoded(model, ids, 9, mask=mask)
    short = torch.cat([ids[:1, :4], ids[:1, 9:]], dim=1)
    torch.testing.assert_close(together[0], model(short)[0, 4:].detach())
    torch.testing.assert_close(together[1], model(ids)[1, 9:].detach())


@torch.no_grad()
def test_the_given_state_stays_as_it_is_and_can_be_used_again():
    model, ids = linear(), tokens(2, 12)
    _, state = model.next_token(ids[:, :5])
    before = State(tuple(x.clone() for x in state.layers), state.position.clone())
    first, second = (Decoder(model, state) for _ in range(2))
    for token in ids[:, 5:].unbind(1):
        a = first(token)
    for token in ids[:, 5:].unbind(1):
        b = second(token)
    assert torch.equal(a, b)
    assert torch.equal(state.position, before.position)
    assert all(map(torch.equal, state.layers, before.layers))


@pytest.mark.gpu
@ON_GPU
@torch.no_grad()
@pytest.mark.parametrize("rows, compiled", [(1, False), (2, False), (8, False), (12, True)])
def test_on_a_gpu_the_recorded_token_is_as_near_as_reading(rows, compiled):
    """bfloat16 beside float64 on the CPU: decoding may be no further off than reading is."""
    sizes = dict(dim=256, heads=2, glu_dim=200, lrpe_layers=(0,))
    model, ids = linear(torch.float32, **sizes), tokens(rows, 60)
    exact = model.double()(ids)[:, 40:]
    model = model.to("cuda", torch.bfloat16)
    ids = ids.cuda()
    far = lambda x: ((x.cpu() - exact).norm() / exact.norm()).item()  # noqa: E731
    got = decoded(model, ids, 40, compiled)
    assert far(got) <= 1.5 * far(model(ids)[:, 40:]) + 1e-3


@pytest.mark.gpu
@ON_GPU
@torch.no_grad()
def test_on_a_gpu_recording_changes_no_state():
    model, ids = linear(torch.float32, dim=48, heads=3).cuda(), tokens(2, 8).cuda()
    _, state = model.next_token(ids)
    decoder = Decoder(model, state)
    assert torch.equal(decoder.position, state.position)
    assert all(map(torch.equal, decoder.states, state.layers))
