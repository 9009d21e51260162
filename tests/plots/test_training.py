import math

import pytest

from tests.plots.checks import assert_readable, assert_told_apart_without_colour
from transnormer_edu.plots import training


def test_the_cost_of_a_token():
    figure, sentence = assert_readable(training.token_cost(["a", "b", "c"], [1 / 4, 1 / 8, 1 / 32]))
    assert "a 2, b 3, c 5" in sentence
    assert "together 10" in sentence
    curve = figure.axes[0].lines[0]
    for p, bits in zip(*curve.get_data(), strict=True):
        assert 2.0**-bits == pytest.approx(p)


@pytest.mark.parametrize("p", [0.0, -0.1, 1.5, math.nan])
def test_no_cost_for_what_is_no_probability(p):
    with pytest.raises(ValueError, match="expected each above 0"):
        training.token_cost(["a"], [p])


def test_the_ruler_is_in_order():
    figure, sentence = assert_readable(training.ruler({"chance": 4.2, "English": 2.5}))
    assert sentence == "From few bits per byte to many: English; chance."
    assert list(figure.axes[0].lines[0].get_xdata()) == [2.5, 4.2]
    with pytest.raises(ValueError, match="odd has 9 bits per byte"):
        training.ruler({"odd": 9})


def test_the_schedule():
    rates = [0.1, 0.2, 0.3, 0.25, 0.07]
    figure, sentence = assert_readable(training.schedule(rates, warmup=3))
    assert "rises for 3 steps to 0.3" in sentence
    assert "0.07 at step 5" in sentence
    steps, drawn = figure.axes[0].lines[0].get_data()
    assert list(steps) == [1, 2, 3, 4, 5]
    assert list(drawn) == rates
    with pytest.raises(ValueError, match="warmup is 6"):
        training.schedule(rates, warmup=6)


def test_losses_names_who_learned():
    runs = {"good": [7.0] * 10 + [4.0], "bad": [7.0] * 10 + [9.0], "nan": [7.0, math.nan]}
    figure, sentence = assert_readable(training.losses(runs, start=7.6))
    assert sentence == "Learned (ended below 6.6 nats per token): good. Did not: bad, nan."
    assert_told_apart_without_colour(figure.axes[0])
    with pytest.raises(ValueError, match="got 0 runs"):
        training.losses({}, start=7.6)
    with pytest.raises(ValueError, match="bad has 0 values"):
        training.losses({"bad": []}, start=7.6)


def test_losses_that_explode_leave_room_for_the_others():
    figure, _ = training.losses({"good": [7.0, 4.0], "bad": [7.0, 1e9]}, start=7.0)
    low, high = figure.axes[0].get_ylim()
    assert low < 4
    assert 7 < high < 30


def test_losses_at_one_step():
    runs = {"soft": [7.6, 6.0, 9.0], "hard": [7.6, 8.0, 7.0]}
    sentence = training.losses(runs, start=7.5, at=2)[1]
    assert sentence == "At step 2: soft is below ln V, hard is above ln V."
    with pytest.raises(ValueError, match="soft has 3 steps, expected step 4"):
        training.losses(runs, start=7.5, at=4)


def test_the_mover_shows_the_run_it_is_given():
    runs = {0.1: [7.0, 5.0], 0.3: [7.0, 9.0]}
    figure, move = training.run_mover(runs, start=7.6)
    assert "Learning rate 0.3: the loss ends at 9.0" in move(0.3)
    assert_readable((figure, move(0.1)))
    assert [list(line.get_ydata()) for line in figure.axes[0].lines].count(runs[0.1]) == 2


def test_the_valley_of_rates():
    figure, sentence = assert_readable(training.rate_sweep([1, 2, 4], [6.0, 5.0, 7.0], start=7.6))
    assert "lies between the ends" in sentence
    assert tuple(figure.axes[0].lines[1].get_xydata()[0]) == (2, 5.0)
    assert "at an end" in training.rate_sweep([1, 2, 4], [4.0, 5.0, 7.0], start=7.6)[1]
    with pytest.raises(ValueError, match="at least 3"):
        training.rate_sweep([1, 2], [6.0, 5.0], start=7.6)
    with pytest.raises(ValueError, match="rates has 3, final_losses has 2"):
        training.rate_sweep([1, 2, 3], [6.0, 5.0], start=7.6)


def test_the_learning_curve():
    curves = {"A": ([10, 20], [3.0, 2.0]), "B": ([10, 20], [2.4, 2.0]), "C": ([10, 20], [4.0, 3.0])}
    figure, sentence = assert_readable(training.learning_curve(curves, zlib=2.5))
    assert "A starts above zlib's line and ends below it" in sentence
    assert "B is below zlib's" in sentence
    assert "C has not fallen below" in sentence
    axes = figure.axes[0]
    assert_told_apart_without_colour(axes)
    assert any(set(line.get_ydata()) == {2.5} for line in axes.lines)
    with pytest.raises(ValueError, match="steps has 2, bits has 1"):
        training.learning_curve({"A": ([1, 2], [3.0])}, zlib=2.5)


def test_gradient_norms():
    norms = [3.0, 0.5, 1.0, 2.0]
    figure, sentence = assert_readable(training.gradient_norms(norms, clip=1.0))
    assert sentence == "Half or more of the gradients were longer than 1 and were shortened."
    assert list(figure.axes[0].lines[0].get_ydata()) == norms
    for clip, many in ((3.0, "None of"), (2.0, "Fewer than half of"), (0.4, "All of")):
        assert training.gradient_norms(norms, clip)[1].startswith(many)
    with pytest.raises(ValueError, match="clip is 0"):
        training.gradient_norms([1.0], clip=0)


def test_speed_over_length():
    speeds = {"A": [90.0, 100.0, 80.0], "B": [200.0, 150.0, 50.0]}
    figure, sentence = assert_readable(training.speed_over_length([8, 16, 32], speeds))
    assert sentence.startswith("At 32 tokens A keeps 80 % of its highest speed; B keeps 25 %")
    assert_told_apart_without_colour(figure.axes[0])
    assert list(figure.axes[0].lines[1].get_ydata()) == [100.0, 75.0, 25.0]
    with pytest.raises(ValueError, match="expected all above 0"):
        training.speed_over_length([8], {"A": [0.0]})
