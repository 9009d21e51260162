import pytest
import torch

from transnormer_edu import TransNormerConfig
from transnormer_edu.layers import Block
from transnormer_edu.recall import ASK, KEYS, VALUES, RecallModel, draw_pairs, learn, right
from transnormer_edu.transformer import TransformerBlock, TransformerConfig


def chance(seed=0):
    return torch.Generator().manual_seed(seed)


def blocks(dim=16):
    twin = TransformerConfig(VALUES, dim, layers=2, heads=1, glu_dim=24)
    ours = TransNormerConfig(VALUES, dim, layers=2, heads=2, decay="none", lrpe_layers=())
    return [TransformerBlock(twin, 0), Block(ours, 1)]


def test_each_question_can_be_answered_from_the_pairs_before_it():
    pairs = draw_pairs(5, 7, chance())
    assert pairs.key.shape == pairs.value.shape == (5, 14)
    assert pairs.answer.shape == pairs.age.shape == (5, 7)
    for text in range(5):
        read = dict(zip(pairs.key[text, :7].tolist(), pairs.value[text, :7].tolist(), strict=True))
        assert len(read) == 7  # no key twice, so no doubt about its value
        for i in range(7):
            key = int(pairs.key[text, 7 + i])
            assert pairs.value[text, 7 + i] == ASK
            assert read[key] == pairs.answer[text, i]
            assert pairs.key[text, 7 + i - int(pairs.age[text, i])] == key


def test_pairs_and_questions_are_drawn_anew():
    first, second = draw_pairs(64, 9, chance(1)), draw_pairs(64, 9, chance(2))
    assert (first.key != second.key).any() and (first.value != second.value).any()
    assert len(first.age[:, 0].unique()) > 4  # the questions come in another order than the pairs
    assert first.key.max() < KEYS and first.answer.max() < VALUES
    assert len(draw_pairs(2, KEYS, chance()).key[0].unique()) == KEYS


@pytest.mark.bad_input
def test_more_pairs_than_keys():
    with pytest.raises(ValueError, match="pairs is 65, expected at most 64"):
        draw_pairs(1, 65, chance())
    with pytest.raises(ValueError, match="pairs is 0"):
        draw_pairs(1, 0, chance())
    with pytest.raises(ValueError, match="batch is 0"):
        draw_pairs(0, 2, chance())


def test_a_question_sees_nothing_that_comes_later():
    model = RecallModel(blocks(), 16).double()
    pairs = draw_pairs(3, 5, chance())
    cut = pairs._replace(key=pairs.key[:, :-2], value=pairs.value[:, :-2])
    whole, part = model.asked(pairs), model(cut.key, cut.value)[:, 5:]
    torch.testing.assert_close(whole[:, :-2], part)


def test_a_softmax_block_learns_to_recall():
    torch.manual_seed(0)
    model, exam = RecallModel(blocks(), 16), draw_pairs(128, 6, chance(3))
    assert right(model, exam).float().mean() < 0.2
    losses = list(learn(model, 150, seed=0, batch=32, most_pairs=8))
    assert len(losses) == 150 and losses[-1] < 0.2 * losses[0]
    assert right(model, exam).shape == (128, 6)
    assert right(model, exam).float().mean() > 0.9


def test_the_same_seed_learns_the_same():
    def run(seed):
        torch.manual_seed(0)
        return list(learn(RecallModel(blocks(), 16), 3, seed=seed, batch=4))

    assert run(1) == run(1) != run(2)


def test_fewer_steps_than_the_warm_up():
    torch.manual_seed(0)
    assert len(list(learn(RecallModel(blocks(), 16), 2, seed=0, batch=2))) == 2
