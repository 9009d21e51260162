"""Under autocast what is summed up over a text, or over all texts, is still summed in float32.

bfloat16 keeps 8 bits: a product that is rounded to it is off by up to 2e-3 of its size.
"""

import pytest
import torch
import torch.nn.functional as F

from transnormer_edu.attention import linear_attention
from transnormer_edu.cross_entropy import IGNORED_LABEL, cross_entropy
from transnormer_edu.parallel import run, sequence

BF16 = dict(device_type="cpu", dtype=torch.bfloat16)
RATE = torch.tensor([0.03, 0.0, 0.4], dtype=torch.float64)


def random(*shape, seed=0):
    """Numbers that bfloat16 has."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=draw).to(torch.bfloat16)


def off(found, exact):
    found, exact = found.detach().double(), exact.detach().double()
    return float((found - exact).norm() / exact.norm())


def test_a_head_may_forget_at_once():
    k, v, rate = random(2, 3, 17, 4, seed=1), random(2, 3, 17, 7, seed=2), torch.full((3,), 100.0)
    _, expected = linear_attention(k, k, v, rate, return_state=True)
    torch.testing.assert_close(sequence.state_after(k, v, rate), expected, check_dtype=False)


@pytest.mark.parametrize("stretch", [1024, 5])
def test_a_state_is_not_rounded(monkeypatch, stretch):
    """Nor what is read from it, nor their gradients."""
    monkeypatch.setattr(sequence, "STRETCH", stretch)
    q, k, v = (random(2, 3, 17, d, seed=d).requires_grad_() for d in (4, 4, 7))

    def both(*given):
        q, k, v, rate = given
        state = sequence.state_after(k, v, rate)
        return state, sequence.read(q, state, rate)

    exact = [x.detach().double().requires_grad_() for x in (q, k, v)]
    expected = both(*exact, RATE)
    with torch.autocast(**BF16):
        found = both(q, k, v, RATE.float())
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == torch.float32
        assert off(ours, theirs) < 1e-6
    grad = random(*found[1].shape).float()
    found[1].backward(grad)
    expected[1].backward(grad.double())
    for ours, theirs in zip((q, k, v), exact, strict=True):
        assert off(ours.grad, theirs.grad.bfloat16()) < 1e-4  # a leaf's gradient has its type


def split(rank, world, x, words, labels):
    """The own words' gradient."""
    from transnormer_edu.parallel.loss import split_cross_entropy

    size = -(-len(words) // world)
    own = words[rank * size : (rank + 1) * size].clone().requires_grad_()
    count = (labels != IGNORED_LABEL).sum()
    with torch.autocast("cpu", torch.bfloat16):
        loss = split_cross_entropy(x, own, labels, count, rank * size, None)
    loss.backward()
    return loss.detach(), own.grad


def test_the_words_gradient_is_not_rounded():
    """Logits and their gradients are, as in one process; what is added up of them is not."""
    x, words = random(300, 24), random(37, 24, seed=1)
    labels = torch.randint(37, (300,), generator=torch.Generator().manual_seed(0))
    left_out = slice(5, 9)
    labels[left_out] = IGNORED_LABEL
    z = (x @ words.T).double()
    dz = z.softmax(-1) - F.one_hot(labels.clamp(min=0), 37)
    dz[left_out] = 0
    exact = dz.bfloat16().double().T @ x.double() / 296
    whole = words.float().requires_grad_()
    with torch.autocast(**BF16):
        loss = cross_entropy(x.float(), whole, labels)
    loss.backward()
    (found, first), (again, second) = run(split, x.float(), words.float(), labels, processes=2)
    assert found == again and off(found, loss) < 1e-5
    assert off(torch.cat([first, second]), exact) < 1e-4
    assert off(whole.grad, exact) < 1e-4
