"""Decoding with a state is decoding by reading everything again; choices mean what they say."""

import math
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.models import BOTH, linear, tokens
from transnormer_edu import TransNormerLLM, generate
from transnormer_edu.generate import stream

GOLDEN = Path(__file__).parent / "data" / "released_small"


@pytest.fixture(params=BOTH.values(), ids=BOTH.keys())
def model(request):
    return request.param()


def test_greedy_tokens_are_those_of_the_original_code():
    model, expected = (
        TransNormerLLM.from_pretrained(GOLDEN),
        load_file(GOLDEN / "expected.safetensors"),
    )
    prompt = expected["greedy_prompt"]
    for _ in range(2):  # the original's second generation goes wrong: a stale position
        assert torch.equal(generate(model, prompt, 24), expected["greedy_tokens"])
    text, state = prompt, None
    for t in range(24):
        logits, state = model(text, state=state, return_state=True)
        torch.testing.assert_close(
            logits[:, -1], expected["greedy_logits"][:, t], rtol=0, atol=2e-6
        )
        text = expected["greedy_tokens"][:, t, None]


def test_greedy_is_the_argmax_of_the_whole_text(model):
    ids = tokens(2, 140)
    new = generate(model, ids, 6, stop_tokens=())
    for t in range(6):
        logits = model(torch.cat([ids, new[:, :t]], dim=1))
        assert torch.equal(new[:, t], logits[:, -1].argmax(-1))


def test_prompts_of_unequal_length_do_not_see_each_other(model):
    prompts = [tokens(n, seed=n).tolist() for n in (9, 2, 30)]
    together = generate(model, prompts, 8, stop_tokens=())
    for row, prompt in enumerate(prompts):
        assert torch.equal(together[row], generate(model, prompt, 8, stop_tokens=())[0])
    mask = torch.zeros(3, 31, dtype=torch.long)
    ids = torch.full((3, 31), 4)
    for row, prompt in enumerate(prompts):  # padded on the right, by the caller
        ids[row, : len(prompt)], mask[row, : len(prompt)] = torch.tensor(prompt), 1
    right = generate(model, ids, 8, attention_mask=mask, stop_tokens=())
    assert torch.equal(right, together)


def test_after_a_stop_token_there_is_padding_and_then_the_end():
    model, prompts = linear(), tokens(3, 5)
    free = generate(model, prompts, 12, stop_tokens=(), temperature=1.0, seed=3)
    stop = int(free[0, 2])
    out = generate(model, prompts, 12, stop_tokens=(stop,), temperature=1.0, seed=3)
    for row in range(3):
        where = (free[row] == stop).nonzero()
        end = int(where[0]) + 1 if len(where) else 12
        assert torch.equal(out[row, :end], free[row, :end])
        assert not out[row, end:].any()
    alone = generate(model, prompts[:1], 12, stop_tokens=(stop,), temperature=0.0)
    assert alone.shape[1] <= 12


def test_one_row_ends_early():
    model, prompt = linear(), tokens(1, 5)
    free = generate(model, prompt, 12, stop_tokens=())
    first = int(free[0, 0])
    assert generate(model, prompt, 12, stop_tokens=(first,)).tolist() == [[first]]


def test_draws_follow_the_distribution():
    model, prompt = linear(), tokens(1, 5)
    logits = model(prompt)[0, -1].detach()
    many = prompt.expand(4000, -1)
    share = lambda **k: generate(model, many, 1, seed=1, **k)[:, 0].bincount(minlength=37) / 4000  # noqa: E731
    plain = logits.softmax(-1).float()
    torch.testing.assert_close(share(temperature=1.0), plain, rtol=0, atol=0.03)
    torch.testing.assert_close(
        share(temperature=3.0), (logits / 3).softmax(-1).float(), rtol=0, atol=0.03
    )
    order = logits.argsort(descending=True)
    drawn = share(temperature=50.0, top_k=4)
    assert set(drawn.nonzero()[:, 0].tolist()) == set(order[:4].tolist())
    warm = (logits / 5).softmax(-1)[order]
    nucleus = int((warm.cumsum(0) < 0.6).sum()) + 1  # the fewest that hold 0.6
    drawn = share(temperature=5.0, top_p=0.6)
    assert set(drawn.nonzero()[:, 0].tolist()) == set(order[:nucleus].tolist())


def test_the_smallest_temperature_is_greedy_and_no_call_is_wasted():
    model, prompt, calls = linear(), tokens(1, 5), []
    greedy = generate(model, prompt, 6, stop_tokens=())
    assert torch.equal(generate(model, prompt, 6, temperature=1e-45, stop_tokens=()), greedy)
    model.model["embed_tokens"].register_forward_hook(lambda *_: calls.append(1))
    generate(model, prompt, 6, stop_tokens=())
    assert len(calls) == 6


def test_one_seed_one_text():
    model, prompt = linear(), tokens(2, 5)
    draws = [generate(model, prompt, 10, temperature=1.5, seed=s) for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_a_stream_gives_tokens_as_they_come(model):
    prompt = tokens(2, 5)
    first = list(islice(stream(model, prompt, 1000, stop_tokens=()), 3))
    assert torch.equal(torch.stack(first, 1), generate(model, prompt, 3, stop_tokens=()))


@pytest.mark.bad_input
def test_ids_are_read_before_they_go_to_a_gpu():
    """There a wrong one would end the process; on the device "meta" nothing is read either."""
    with pytest.raises(ValueError, match="id 99 is outside the vocabulary"):
        generate(linear().to("meta"), [3, 99], 2)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "call, sentence",
    [
        (dict(max_new_tokens=0), "max_new_tokens is 0, expected a whole number of at least 1"),
        (dict(temperature=-1.0), "temperature is -1.0, expected 0"),
        (dict(temperature=float("nan")), "temperature is nan"),
        (dict(max_new_tokens=2.5), "max_new_tokens is 2.5, expected a whole number"),
        (dict(max_new_tokens="3"), "max_new_tokens is '3', expected a whole number"),
        (dict(temperature="hot"), "temperature is 'hot', expected 0"),
        (dict(top_k=1.5), "top_k is 1.5, expected at least 1"),
        (dict(top_p="all"), "top_p is 'all', expected a share"),
        (dict(seed=1.5), "seed is 1.5, expected a whole number of at most 64 bits"),
        (dict(seed=2**64), "seed is 18446744073709551616, expected a whole number of at most 64"),
        (dict(stop_tokens="ab"), "stop_tokens holds 'a', expected tokens from 0 to 36"),
        (dict(stop_tokens=1.5), "stop_tokens holds 1.5"),
        (dict(stop_tokens=[37]), "stop_tokens holds 37"),
        (dict(stop_tokens=[[1]]), r"stop_tokens holds \[1\]"),
        (dict(ids=torch.tensor(3)), r"got ids \(\)"),
        (dict(ids=torch.ones(1, 3)), r"got ids \(1, 3\) of torch.float32; expected whole"),
        (dict(ids=torch.tensor([3, 4]), attention_mask=torch.ones(2)), "expected one shape"),
        (dict(attention_mask=torch.ones(1, 1, 3, 3)), "expected one shape"),
        (dict(top_k=0), "top_k is 0"),
        (dict(top_p=0.0), "top_p is 0.0, expected a share above 0"),
        (dict(top_p=1.2), "top_p is 1.2"),
        (dict(ids=[[1, 2], []]), "a prompt is empty"),
        (dict(ids=[]), "a prompt is empty"),
        (dict(ids=[1.5, 2.0]), "holds fractions"),
        (dict(ids=[[1, 99]]), "id 99 is outside the vocabulary"),
        (dict(attention_mask=torch.zeros(1, 3)), "no real token"),
    ],
)
def test_bad_calls_are_named(call, sentence):
    given = dict(ids=torch.tensor([[3, 4, 5]])) | call
    with pytest.raises(ValueError, match=sentence):
        generate(linear(), **given)


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "ids", ["text", None, 5, {3: 4}, ["text"], [3, [4]], [None], [2**70]], ids=repr
)
def test_what_are_no_ids_is_named(ids):
    with pytest.raises(TypeError, match="expected token ids: a tensor .* encode makes them"):
        generate(linear(), ids)


@pytest.mark.bad_input
@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_no_token_is_chosen_from_what_are_no_numbers(temperature, number):
    model = linear()
    model.model["embed_tokens"].weight.data[7, 0] = number  # the head: logit 7 of every row
    with pytest.raises(FloatingPointError, match="logit is (nan|inf), expected a number"):
        generate(model, tokens(2, 3), temperature=temperature, seed=0)


@pytest.mark.bad_input
def test_what_is_no_model_or_mask_is_named():
    for other in ("folder", None, torch.nn.Linear(2, 2)):
        with pytest.raises(TypeError, match="expected a model such as TransNormerLLM"):
            generate(other, [3, 4])
    with pytest.raises(TypeError, match="attention_mask is a list, expected a tensor"):
        generate(linear(), tokens(1, 2), attention_mask=[[1, 1]])


def test_one_stop_token_needs_no_list():
    model, prompt = linear(), tokens(1, 5)
    first = int(generate(model, prompt, 1, stop_tokens=())[0, 0])
    for stop in (first, torch.tensor(first), torch.tensor([first]), [torch.tensor(first)]):
        assert generate(model, prompt, 12, stop_tokens=stop).tolist() == [[first]]


def test_a_long_prompt_costs_no_logits_for_each_of_its_tokens():
    n, vocabulary = 300, 5000
    model = linear(torch.float32, vocab_size=vocabulary)
    with torch.profiler.profile(profile_memory=True) as seen:
        generate(model, tokens(1, n), 2)
    largest = max(event.self_cpu_memory_usage for event in seen.events())
    assert 4 * vocabulary <= largest < 4 * n * vocabulary / 10
