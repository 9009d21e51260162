"""The table of `bench attention`: what is measured where, and what its columns are. No times."""

from transnormer_edu import bench
from transnormer_edu.bench import Row, attention_speed, table


def test_every_length_is_measured_and_softmax_only_where_it_is_short(monkeypatch):
    monkeypatch.setattr(bench, "SOFTMAX_UP_TO", 8)
    short, long = attention_speed((8, 16), heads=2, head_dim=4, repeat=2)
    assert short.n == 8 and long.n == 16
    assert all(0 < milliseconds < 1e4 for milliseconds in (*short[1:], *long[1:3]))
    assert long.softmax is None and long.softmax_training is None


def test_a_time_is_the_fastest_of_all_rounds(monkeypatch):
    clock = iter([5.0, 9.0, 3.0, 7.0, 4.0, 8.0])
    monkeypatch.setattr(bench, "_milliseconds", lambda run: next(clock))
    monkeypatch.setattr(bench, "SOFTMAX_UP_TO", 0)
    assert list(attention_speed((8,), repeat=3)) == [Row(8, 3.0, 7.0, None, None)]


def test_ratios_and_growth_are_those_of_the_times():
    rows = [Row(1024, 2.0, 5.0, 6.0, 20.0), Row(2048, 3.0, 11.0, None, None)]
    first, second = list(table(iter(rows)))[-2:]
    assert " ".join(first.split()) == "1024 2.00 / 5.00 6.00 / 20.00 3.00 / 4.00"
    assert " ".join(second.split()) == "2048 3.00 / 11.00 - - 1.50 / 2.20"
