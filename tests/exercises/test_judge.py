"""What a check says about wrong functions that nobody listed, of each kind that there is."""

import math

import numpy as np
import torch

from transnormer_edu.exercises.catalog import find
from transnormer_edu.exercises.compare import close, same_values
from transnormer_edu.exercises.draw import Draw
from transnormer_edu.exercises.exercise import Case, Exercise
from transnormer_edu.exercises.judge import judge
from transnormer_edu.exercises.lesson_04 import by_loop, by_whole_map
from transnormer_edu.exercises.observe import Outcome

LOOP = find("4.4")


def said(function, exercise=LOOP) -> str:
    wrong = judge(exercise, function)
    assert wrong is not None
    return wrong


def with_parts(change):
    return lambda *inputs: tuple(map(change, by_loop(*inputs)))


def test_right():
    assert judge(LOOP, by_whole_map) is None


def test_what_came_back():
    assert "it returned None: is a `return` missing?" in said(lambda *x: None)
    assert "returned a Tensor, expected the 2 parts o, state" in said(lambda *x: by_loop(*x)[0])
    assert "returned 3 parts" in said(lambda *x: (1, 2, 3))
    assert "o is a list, expected a tensor" in said(with_parts(lambda x: x.tolist()))
    assert "[text head token value]" in said(with_parts(lambda x: x.mT))
    assert "o is torch.float32, expected torch.float64" in said(with_parts(torch.Tensor.float))


def test_the_first_wrong_place():
    def wrong_in_one_place(*inputs):
        o, state = by_loop(*inputs)
        if o.shape[1] > 1:
            o[0, 1, -1, 0] += 1
        return o, state

    assert "o at text 0, head 1, token 16, value 0 is" in said(wrong_in_one_place)
    assert "; 1 of " in said(wrong_in_one_place)


def test_only_one_shape_is_wrong():
    def squeezes(*inputs):
        o, state = by_loop(*inputs)
        return o.squeeze(), state

    assert "With a single token" in said(squeezes)
    single = "With a single token"
    assert single in said(lambda q, *x: by_loop(q, *x) if q.shape[2] > 1 else (0 * q, x[-1]))


def test_layout_in_memory():
    def views(q, k, v, rate, state):
        b, h, n, _ = q.shape
        return by_loop(q.view(b * h, n, -1).view(q.shape), k, v, rate, state)

    assert "not contiguous in memory" in said(views)


def test_an_exception_and_its_line():
    def raises(q, k, v, rate, state):
        twice = 2 * q
        return torch.cat([twice, "no tensor"])

    assert "in line 3 it raised TypeError: expected Tensor" in said(raises)
    assert "SystemExit" in said(lambda *x: exit())

    def not_yet(*inputs):
        raise NotImplementedError("return o")

    assert "this is still to be written: return o." in said(not_yet)


def test_an_input_that_is_written_over():
    def scales(q, *others):
        o = by_loop(q, *others)
        q *= 2
        return o

    assert "it changes its input q" in said(scales)


def test_gradients():
    assert "no gradient reaches q" in said(with_parts(torch.Tensor.detach))

    def only_of_v(q, k, v, rate, state):
        o, _ = by_loop(q.detach(), k.detach(), v, rate.detach(), state.detach())
        return o, by_loop(q, k, v, rate, state)[1]

    assert "no gradient reaches q" in said(only_of_v)

    def half(q, k, v, rate, state):
        o, state = by_loop(q, k, v, rate, state)
        return (o + o.detach()) / 2, state

    assert "the values are right, but the gradient of q at (0, 0, 0, 0)" in said(half)


def test_a_gradient_that_is_not_a_number():
    def root_of_zero(q, k, v, rate, state):
        o, state = by_loop(q, k, v, rate, state)
        return o + 0 * (0 * v).sqrt(), state

    assert "the gradient of v at (0, 0, 0, 0) is nan" in said(root_of_zero)


def test_a_tensor_that_is_kept_between_calls():
    kept = {}

    def writes_into_it(q, k, v, rate, state):
        o, state = by_loop(q, k, v, rate, state)
        buffer = kept.setdefault(o.shape, torch.empty_like(o))
        return buffer.copy_(o), state

    assert "a later call changes what was returned" in said(writes_into_it)


def test_what_was_computed_for_other_numbers():
    kept = {}

    def remembers(q, k, v, rate, state):
        return kept.setdefault(q.shape, by_loop(q, k, v, rate, state))

    assert "With other numbers of the same sizes" in said(remembers)


def test_a_function_that_changes_its_mind():
    calls, cases = [], len(list(LOOP.cases(Draw(0))))

    def only_the_first_times(*inputs):
        calls.append(1)
        o, state = by_loop(*inputs)
        return (o, state) if len(calls) <= cases else (2 * o, state)

    assert "the first inputs once more" in said(only_the_first_times)


def test_guesses():
    assert "everything is 2 times what it should be" in said(with_parts(lambda x: 2 * x))
    rounds = with_parts(lambda x: x.float().to(x.dtype))
    assert "only about 7 digits are right" in said(rounds)
    assert "digits are right" not in said(with_parts(lambda x: x * (1 + 1e-5 * x)))
    assert "times what it should be" not in said(with_parts(torch.zeros_like))
    shorter = with_parts(lambda x: 2 * x if x.shape[0] > 1 else x[:0])
    assert "times what it should be" not in said(shorter)


def test_what_all_share_is_put_back():
    def sets(*inputs):
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        return by_loop(*inputs)

    judge(LOOP, sets)
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()


def number(reference, returns="count"):
    return Exercise(
        number="0.1", title="", level=1, worth=1, minutes=1, needs="",
        function="f", returns={returns: ""}, reference=reference,
        cases=lambda draw: [Case("With 3", {"n": 3}), Case("With 4", {"n": 4})],
        answers={}, mistakes={}, gradients=False,
    )  # fmt: skip


def test_numbers():
    doubled = number(lambda n: 2 * n)
    assert judge(doubled, lambda n: torch.tensor(2 * n)) is None
    assert "count is 4, expected 6" in said(lambda n: n + 1, doubled)
    assert "count is a str, expected a int" in said(str, doubled)
    assert "count is a bool" in said(lambda n: True, doubled)
    assert judge(number(lambda n: n / 3), lambda n: n * (1 / 3)) is None
    assert "expected 1" in said(lambda n: n / 3 + 1e-6, number(lambda n: n / 3))


def test_numbers_of_numpy():
    small = number(lambda n: n < 4)
    assert judge(small, lambda n: np.int64(n) < 4) is None
    assert judge(small, lambda n: np.array(n < 4)) is None
    assert judge(number(lambda n: n / 3), lambda n: np.float64(n) / 3) is None
    assert "count is a bool, expected a int" in said(
        lambda n: np.bool_(True), number(lambda n: 2 * n)
    )


def test_no_gradient_is_recognised_like_a_gradient_of_zeros():
    def undecayed(q, k, v, rate, state):
        return by_loop(q, k, v, torch.zeros_like(rate), state)

    assert "It looks as if the decay is missing" in said(undecayed)


def test_not_a_number_is_wrong():
    assert "is nan, expected" in said(with_parts(lambda x: x / 0 * 0))


def test_a_finite_number_is_not_infinity():
    infinite = torch.tensor([math.inf, -math.inf, 1.0]).double()
    for wrong in (-infinite, infinite.clamp(-1e300, 1e300), infinite * 0):
        assert not close(wrong, infinite)[:2].any()
    assert close(infinite, infinite).all()
    assert "count is 3, expected inf" in said(lambda n: 3.0, number(lambda n: math.inf))
    one, other = Outcome(value=7.0), Outcome(value=math.inf)
    assert not same_values(one, other)
    turn = find("5.1")
    limited = lambda theta: turn.reference(theta.abs().clamp(min=1e-9))  # noqa: E731
    assert "expected inf" in said(limited, turn)


def test_a_map_of_all_tokens_is_refused_where_chunks_are_asked_for():
    wrong = said(lambda q, k, v, size: (q @ k.mT).tril() @ v, find("2.5"))
    assert "With a long text and no map of all of it" in wrong
    assert "41, 41), a map of all 41 tokens by all" in wrong
