"""The whole model: the original code's numbers, states, padding, loss; the baseline alike.

Where nothing else is said each test runs on a TransNormerLLM and on the softmax baseline.
"""

import copy
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from tests.models import BOTH, VOCABULARY, linear, softmax, tokens
from transnormer_edu import TransNormerLLM
from transnormer_edu.model import State

GOLDEN = Path(__file__).parent / "data" / "released_small"


@pytest.fixture(params=BOTH.values(), ids=BOTH.keys())
def model(request):
    return request.param()


def test_logits_are_those_of_the_original_code():
    model, expected = (
        TransNormerLLM.from_pretrained(GOLDEN),
        load_file(GOLDEN / "expected.safetensors"),
    )
    with torch.no_grad():
        logits = model(expected["input_ids"])
    assert (logits - expected["logits_prefill"]).abs().max() <= 2e-6
    assert (logits - expected["logits_train_path"]).abs().max() <= 2e-6


@torch.no_grad()
@pytest.mark.parametrize("pieces", [[150], [1, 149], [130, 11, 9], [60] + [1] * 90])
def test_a_text_in_pieces_gives_the_same_logits_and_state(model, pieces):
    ids = tokens(2, 150)
    whole, last = model(ids, return_state=True)
    state, parts = None, []
    for piece in ids.split(pieces, dim=1):
        logits, state = model(piece, state=state, return_state=True)
        parts.append(logits)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)
    same_state(state, last)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right", "both sides", "holes"])
def test_a_padded_prompt_is_the_prompt_alone(model, side):
    prompts = [tokens(1, n, seed=n) for n in (150, 131, 4)]
    ids, mask = padded(prompts, side)
    logits, state = model(ids, attention_mask=mask, return_state=True)
    for row, prompt in enumerate(prompts):
        alone, own = model(prompt, return_state=True)
        torch.testing.assert_close(logits[row, mask[row].bool()], alone[0])
        next_logits, _ = model(tokens(3, 1), state=state, return_state=True)
        torch.testing.assert_close(next_logits[row], model(tokens(3, 1)[row, None], state=own)[0])
        if isinstance(model, TransNormerLLM):
            for kept, expected in zip(state.layers, own.layers, strict=True):
                torch.testing.assert_close(kept[row], expected[0])
            assert state.position[row] == own.position[0] == prompt.shape[1]


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_pieces_go_on_from_a_state(model, side):
    first, second = tokens(3, 7, seed=1), [tokens(1, n, seed=n) for n in (9, 2, 5)]
    _, state = model(first, return_state=True)
    ids, mask = padded(second, side)
    logits, state = model(ids, attention_mask=mask, state=state, return_state=True)
    after, _ = model(tokens(3, 4), state=state, return_state=True)
    for row, prompt in enumerate(second):
        text = torch.cat([first[row, None], prompt, tokens(3, 4)[row, None]], dim=1)
        alone = model(text)[0]
        torch.testing.assert_close(logits[row, mask[row].bool()], alone[7 : 7 + prompt.shape[1]])
        torch.testing.assert_close(after[row], alone[-4:])


def test_loss_is_the_mean_over_next_tokens(model):
    ids = tokens(2, 11)
    labels = ids.clone()
    labels[0, 3:6] = labels[1, 10] = -100
    log_p = F.log_softmax(model(ids), dim=-1)
    terms = [
        -log_p[b, t, labels[b, t + 1]]
        for b in range(2)
        for t in range(10)
        if labels[b, t + 1] != -100
    ]
    torch.testing.assert_close(model(ids, labels=labels), torch.stack(terms).mean())


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_adds_nothing_to_the_loss(model, side):
    prompts = [tokens(1, n, seed=n) for n in (9, 5)]
    ids, mask = padded(prompts, side)
    losses = [model(prompt, labels=prompt) * (prompt.shape[1] - 1) for prompt in prompts]
    torch.testing.assert_close(model(ids, labels=ids, attention_mask=mask), sum(losses) / (8 + 4))


def test_gradients_are_those_of_finite_differences():
    model, ids = linear(dim=6, glu_dim=5, heads=2, layers=2, lrpe_layers=(0,)), tokens(1, 5)
    names, values = zip(*model.named_parameters(), strict=True)

    def loss(*weights):
        given = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(model, given, (ids,), {"labels": ids})

    inputs = tuple(value.detach().clone().requires_grad_() for value in values)
    assert torch.autograd.gradcheck(loss, inputs)


def test_autoregression_no_token_sees_its_future(model):
    ids = tokens(1, 12)
    changed = ids.clone()
    changed[:, 8:] = tokens(1, 4, seed=9)
    before, after = model(ids), model(changed)
    torch.testing.assert_close(before[:, :8], after[:, :8])
    assert not torch.allclose(before[:, 8:], after[:, 8:])


def test_initial_weights():
    model = TransNormerLLM(linear(vocab_size=999, dim=96).config)
    embedding = model.model["embed_tokens"].weight
    assert not embedding[0].any()
    for name, weight in model.named_parameters():
        if "theta" not in name:
            assert weight.std().item() == pytest.approx(0.02, rel=0.1), name


def test_a_model_on_meta_has_shapes_and_no_memory():
    with torch.device("meta"):
        model = TransNormerLLM(linear().config)
        assert model(torch.zeros(2, 7, dtype=torch.long)).shape == (2, 7, VOCABULARY)
    assert all(p.is_meta for p in model.parameters())


def test_half_precision_follows_full():
    ids = tokens(2, 40)
    exact = linear()(ids)
    narrow = linear(torch.bfloat16)(ids)
    assert narrow.dtype == torch.bfloat16
    assert (narrow.double() - exact).norm() / exact.norm() < 0.05


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "call, sentence",
    [
        (dict(ids=torch.tensor([[1, VOCABULARY]])), "id 37 is outside the vocabulary; expected 0"),
        (dict(ids=torch.tensor([[1, -1]])), "id -1 is outside the vocabulary"),
        (dict(ids=torch.tensor([1, 2])), r"got ids \(2,\)"),
        (dict(ids=torch.ones(1, 4)), "expected whole numbers"),
        (dict(ids=torch.ones(1, 0).long()), r"got ids \(1, 0\)"),
        (dict(labels=torch.tensor([[1, 2]])), r"got labels \(1, 2\), ids \(2, 5\)"),
        (dict(labels=torch.full((2, 5), 40)), "label 40 is outside the vocabulary"),
        (dict(ids=torch.ones(1, 4).bool()), r"got ids \(1, 4\) of torch.bool; expected whole"),
        (dict(ids=torch.ones(1, 4, dtype=torch.complex64)), "expected whole numbers"),
        (dict(labels=torch.ones(2, 5)), "got labels of torch.float32; expected token ids"),
        (dict(labels=torch.ones(5).long()), r"got labels \(5,\), ids \(2, 5\)"),
        (dict(attention_mask=torch.full((2, 5), 0.5)), "attention_mask holds 0.5; expected 0 at"),
        (dict(attention_mask=torch.full((2, 5), -1e9)), "attention_mask holds .*; expected 0 at"),
        (dict(attention_mask=torch.ones(5)), r"got attention_mask \(5,\), ids \(2, 5\)"),
        (dict(ids=torch.ones(2, 5, device="meta").long()), "model on cpu, ids on meta; expected"),
        (dict(attention_mask=torch.ones(2, 4)), r"got attention_mask \(2, 4\), ids \(2, 5\)"),
    ],
)
def test_bad_calls_are_named(model, call, sentence):
    with pytest.raises(ValueError, match=sentence):
        model(**dict(ids=tokens(2, 5)) | call)


@pytest.mark.bad_input
@pytest.mark.parametrize("name", ["ids", "labels", "attention_mask"])
@pytest.mark.parametrize("change", [torch.Tensor.tolist, torch.Tensor.numpy, lambda _: "text"])
def test_what_is_no_tensor_is_named(model, name, change):
    given = dict(ids=tokens(2, 5)) | {name: change(torch.ones(2, 5).long())}
    kind = type(given[name]).__name__
    with pytest.raises(TypeError, match=f"{name} is a {kind}, expected a tensor"):
        model(**given)


@pytest.mark.bad_input
def test_another_models_config_is_named(model):
    other = softmax() if isinstance(model, TransNormerLLM) else linear()
    ours, theirs = type(model.config).__name__, type(other.config).__name__
    with pytest.raises(TypeError, match=f"config is a {theirs}, expected a {ours}"):
        type(model)(other.config)
    with pytest.raises(TypeError, match=f"config is a str, expected a {ours}"):
        type(model)("385m")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_ids_of_any_whole_type_are_read(model, dtype):
    ids = tokens(2, 5)
    assert torch.equal(model(ids.to(dtype)), model(ids))
    assert torch.equal(model(ids, labels=ids.to(dtype)), model(ids, labels=ids))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16])
def test_a_type_may_end_before_the_vocabulary_does(dtype):
    model, ids = linear(vocab_size=64_000), tokens(2, 5)
    assert torch.equal(model(ids.to(dtype), labels=ids.to(dtype)), model(ids, labels=ids))


def test_the_next_token_is_the_last_real_one_of_each_row(model):
    prompts = [tokens(1, n, seed=n) for n in (9, 4)]
    for side in ("left", "right", "holes"):
        ids, mask = padded(prompts, side)
        logits, state = model.next_token(ids, mask)
        for row, prompt in enumerate(prompts):
            torch.testing.assert_close(logits[row], model(prompt)[0, -1])
        _, expected = model(ids, attention_mask=mask, return_state=True)
        same_state(state, expected)


@pytest.mark.bad_input
def test_no_token_comes_next_in_a_row_that_is_all_padding(model):
    mask = torch.tensor([[1, 1, 1], [0, 0, 0]])
    with pytest.raises(ValueError, match="a row of attention_mask has no real token; expected"):
        model.next_token(tokens(2, 3), mask)
    assert model(tokens(2, 3), attention_mask=mask).shape == (2, 3, 37)  # nothing is asked of it


@pytest.mark.bad_input
def test_a_state_of_another_model_is_named(model):
    _, state = type(model)(model.config)(tokens(2, 5), return_state=True)
    with pytest.raises(ValueError, match=r"3 layers and 2 rows.* was given 4 rows"):
        model(tokens(4, 5), state=state)
    is_linear = isinstance(model, TransNormerLLM)
    fewer = linear(layers=2, lrpe_layers=()) if is_linear else softmax(layers=2)
    with pytest.raises(ValueError, match="this model has 2 layers"):
        fewer(tokens(2, 5), state=state)
    other = softmax() if is_linear else linear()
    with pytest.raises(ValueError, match="but this model keeps .*is it another model's"):
        other(tokens(2, 5), state=state)
    halves = state.position + 0.5
    for part in (dict(position=[5, 5]), dict(position=5), dict(position=halves), dict(layers=None)):
        with pytest.raises(ValueError, match="expected the State that an earlier call"):
            model(tokens(2, 5), state=state._replace(**part))
    with pytest.raises(ValueError, match="got ids on cpu, state on meta; expected one device"):
        model(tokens(2, 5), state=state._replace(position=state.position.to("meta")))
    with pytest.raises(ValueError, match="got a state of type tuple"):
        model(tokens(2, 5), state=(1, 2))


@pytest.mark.bad_input
def test_a_state_of_other_sizes_is_refused_with_a_mask_too():
    model, ids = linear(), tokens(2, 5)
    _, state = model(ids, return_state=True)
    narrow = State(tuple(x[:, :1] for x in state.layers), state.position)
    for mask in (None, torch.ones(2, 5)):
        with pytest.raises(ValueError, match="got state"):
            model(ids, attention_mask=mask, state=narrow)


def test_a_model_can_be_pickled_and_copied(model):
    again = pickle.loads(pickle.dumps(model))
    assert torch.equal(again(tokens(2, 5)), model(tokens(2, 5)))
    assert torch.equal(copy.deepcopy(model)(tokens(2, 5)), model(tokens(2, 5)))


def padded(prompts, side):
    """Prompts as rows of one tensor; padding holds a token that would be noticed."""
    n = max(p.shape[1] for p in prompts) + (3 if side == "both sides" else 0)
    ids, mask = torch.full((len(prompts), n), 5), torch.zeros(len(prompts), n, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        m = prompt.shape[1]
        start = {"left": n - m, "right": 0, "both sides": (n - m) // 2, "holes": 0}[side]
        columns = torch.arange(start, start + m)
        if side == "holes":
            columns = torch.linspace(0, n - 1, m).round().long()
        ids[row, columns], mask[row, columns] = prompt[0], 1
    return ids, mask


def same_state(state, expected):
    flat, other = torch.utils._pytree.tree_leaves(state), torch.utils._pytree.tree_leaves(expected)
    for one, two in zip(flat, other, strict=True):
        torch.testing.assert_close(one, two)
