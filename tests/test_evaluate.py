"""Loss, perplexity and bits per byte: each token is foretold once, from enough of a past."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests import models
from transnormer_edu import TransNormerConfig, TransNormerLLM
from transnormer_edu.evaluate import Score, cut_windows, evaluate
from transnormer_edu.model import IGNORED_LABEL
from transnormer_edu.tokenizer import Tokenizer

BYTES = Tokenizer.of_bytes()
TEXT = "In the beginning was the état, and it was fp32.\n" * 3


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    sizes = {"vocab_size": 259, "dim": 12, "layers": 2, "heads": 3, "glu_dim": 10}
    return models.randomised(TransNormerLLM(TransNormerConfig(**sizes)))


class Uniform(nn.Module):
    """Knows nothing: every id is as likely as any other."""

    def __init__(self, vocab_size):
        super().__init__()
        self.config = type("Config", (), {"vocab_size": vocab_size})
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, ids):
        return torch.zeros(*ids.shape, self.config.vocab_size)


def test_who_knows_nothing_pays_log_v():
    score = evaluate(Uniform(259), BYTES, TEXT, context=16)
    assert score.tokens == score.bytes == len(TEXT.encode())
    assert score.loss == pytest.approx(math.log(259), rel=1e-6)
    assert score.perplexity == pytest.approx(259, rel=1e-5)
    assert score.bits_per_byte == pytest.approx(math.log2(259), rel=1e-6)


def test_a_large_vocabulary_costs_no_memory_of_its_own():
    """Logits of all windows at once would be more than what the loss of training holds."""
    model, largest = models.linear(vocab_size=4099), 0

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            nonlocal largest
            made = operation(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor):
                largest = max(largest, made.numel())
            return made

    with Largest():
        evaluate(model, BYTES, TEXT * 20, context=64, batch_size=16)
    assert 4099 * 18 <= largest <= 2**20  # the embedding; a piece of `cross_entropy`


def test_bits_per_byte_counts_bytes_not_tokens():
    tokenizer = Tokenizer.train([TEXT], 280)
    score = evaluate(Uniform(tokenizer.vocab_size), tokenizer, TEXT)
    assert score.bytes == len(TEXT.encode()) > score.tokens == len(tokenizer.encode(TEXT))
    expected = math.log2(tokenizer.vocab_size) * score.tokens / score.bytes
    assert score.bits_per_byte == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("length", [2, 5, 6, 17, 23, 24, 25])
@pytest.mark.parametrize(("context", "stride"), [(4, 2), (5, 5), (8, 3), (30, 7), (2, 1)])
def test_each_token_is_foretold_once(length, context, stride):
    row = torch.arange(100, 100 + length)
    inputs, targets = cut_windows(row, context, stride)
    scored = targets != IGNORED_LABEL
    assert targets[scored].tolist() == row[1:].tolist()
    assert (inputs[scored] + 1 == targets[scored]).all()  # the token before it is its input
    past = scored.nonzero()[:, 1]
    first = past[: min(context, length - 1)]
    assert first.tolist() == list(range(len(first)))
    assert (past[len(first) :] >= context - stride).all()


def test_the_example_in_the_docstring():
    inputs, targets = cut_windows(torch.tensor([1, 2, 3, 4, 5, 6]), 4, 2)
    assert inputs.tolist() == [[1, 2, 3, 4], [3, 4, 5, 6]]
    assert targets.tolist() == [[2, 3, 4, 5], [-100, -100, 6, -100]]


def test_a_few_windows_are_spread_over_the_text():
    inputs, _ = cut_windows(torch.arange(100), 5, 5, max_windows=3)
    assert inputs[:, 0].tolist() == [0, 45, 95]


def test_one_window_is_the_plain_loss(model):
    row = torch.tensor([[1, *BYTES.encode(TEXT)]])
    expected = F.cross_entropy(model(row)[0, :-1], row[0, 1:], reduction="sum").item()
    for choices in ({"context": 500}, {"context": 7, "carry_state": True}):
        score = evaluate(model, BYTES, TEXT, **choices)
        assert score.nats == pytest.approx(expected, rel=1e-5)
    assert evaluate(model, BYTES, TEXT, context=7).nats != pytest.approx(expected, rel=1e-5)


def test_windows_agree_with_foretelling_one_token_at_a_time(model):
    row, context, stride = [1, *BYTES.encode(TEXT)], 9, 4
    nats = 0.0
    for t in range(1, len(row)):
        start = max(0, math.ceil((t - context) / stride)) * stride
        logits = model(torch.tensor([row[start:t]]))[0, -1]
        nats -= logits.log_softmax(-1)[row[t]].item()
    score = evaluate(model, BYTES, TEXT, context=context, stride=stride, batch_size=3)
    assert score.nats == pytest.approx(nats, rel=1e-5)


def test_the_model_is_left_as_it_was(model):
    for training in (True, False):
        model.train(training)
        evaluate(model, BYTES, "x")
        assert model.training is training


def test_a_hopeless_loss_has_infinite_perplexity():
    assert Score(1e6, 1, 1).perplexity == math.inf


@pytest.mark.bad_input
def test_bad_input(model):
    for choices, sentence in (
        ({"text": ""}, "The text to evaluate is empty"),
        ({"context": 1}, "context is 1, expected at least 2"),
        ({"context": 8, "stride": 9}, "stride is 9, expected 1 to the context, 8"),
        ({"stride": 0}, "stride is 0"),
        ({"max_windows": 0}, "max_windows is 0"),
        ({"context": "long"}, "context is 'long', expected a whole number"),
        ({"stride": 1.5}, "stride is 1.5, expected 1 to the context"),
        ({"batch_size": 1.5}, "batch_size is 1.5, expected a whole number"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"carry_state": True, "max_windows": 2}, "give one of them"),
    ):
        with pytest.raises(ValueError, match=sentence):
            evaluate(**{"model": model, "tokenizer": BYTES, "text": TEXT} | choices)
    silent = Tokenizer.of_bytes()
    silent.encode = lambda text: []  # as sentencepiece's of spaces alone
    with pytest.raises(ValueError, match="text '   ' has no token for this tokenizer"):
        evaluate(model, silent, "   ")
    with pytest.raises(ValueError, match="has 259 ids and the model knows 37"):
        evaluate(models.linear(), BYTES, TEXT)
