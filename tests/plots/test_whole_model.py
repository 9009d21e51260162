from pathlib import Path

import pytest

from tests.plots.checks import assert_readable, assert_told_apart_without_colour
from transnormer_edu.plots.whole_model import decoding, training
from transnormer_edu.speed.measured import (
    curve,
    curves,
    measured,
    rows,
    table,
    times_the_twin,
    where,
)

ROOT = Path(__file__).parents[2]


def row(what, model, context, tokens_per_s, **more):
    return dict(what=what, model=model, context=context, tokens_per_s=tokens_per_s, **more)


RESULTS = {
    "rows": [
        row("train", "ours", 256, 10.0, batch=4, ms=1.0, of_matmul_rate=0.5, activation_bytes=7),
        row("train", "ours", 256, 12.0, batch=2, ms=0.9, of_matmul_rate=0.6, activation_bytes=3),
        row("train", "ours", 1024, 11.0, batch=1, ms=1.1),
        row("train", "twin", 256, 8.0, batch=4, ms=2.0),
        {"what": "train", "model": "twin", "context": 1024, "skipped": "OutOfMemoryError: much"},
        row("decode", "ours", 512, 100.0, batch=1, ms=10.0),
        row("decode", "ours", 512, 900.0, batch=64, ms=71.0),
        row("decode", "twin", 512, 300.0, batch=64, ms=210.0),
    ]
}  # fmt: skip
SPEEDS = {"ours": {256: 12.0, 1024: 11.0}, "twin": {256: 8.0, 1024: 4.0}}


def test_of_several_batches_the_fastest_counts():
    assert curve(RESULTS, "train", "ours", "tokens_per_s") == {256: 12.0, 1024: 11.0}
    assert rows(RESULTS, "train", "ours", "activation_bytes")[256]["activation_bytes"] == 3
    parts = {"rows": [row | {"parts": 2} for row in RESULTS["rows"]]}
    assert rows(parts, "train", "ours", "activation_bytes") == {}
    assert rows(parts, "train", "ours", "ms")


def test_what_was_not_measured_is_left_out():
    assert times_the_twin(RESULTS, "train") == {256: 1.5}
    assert times_the_twin(RESULTS, "decode", batch=64) == {512: 3.0}
    assert len(table(RESULTS)) == 1 + 7


def test_curves_by_the_names_that_a_reader_knows():
    found = curves(RESULTS, "train", "ms", scale=2)
    assert found == {"TransNormerLLM": {256: 1.8, 1024: 2.2}, "softmax twin": {256: 4.0}}
    origin = {"device": "abacus", "threads": 2, "date": "1202-03-04", "torch": "2.11"}
    said = where({"origin": origin, "size": "2m"})
    assert said == "abacus, 2 threads, 2m parameters; 1202-03-04, torch 2.11"


def test_training_over_the_context():
    memory = {"ours": {256: 3.0, 1024: 3.0}, "twin": {256: 3.5, 1024: 3.5}}
    figure, sentence = assert_readable(training(SPEEDS, memory, "a machine"))
    assert "ours over the twin, tokens per second: 1.50 at 256, 2.75 at 1,024" in sentence
    assert [list(line.get_ydata()) for line in figure.axes[0].lines] == [[12, 11], [8, 4]]
    assert_told_apart_without_colour(figure.axes[0])


def test_decoding_over_what_was_read():
    times = {"ours": {1024: 0.5, 2**20: 0.501}, "twin": {1024: 2.0}}
    figure, sentence = assert_readable(decoding(times, "a machine"))
    assert "ours 0.5 ms after 1,024 tokens, 0.501 after 1,048,576" in sentence
    assert list(figure.axes[0].lines[0].get_xdata()) == [1024, 2**20]


def test_broken_input():
    with pytest.raises(ValueError, match="expected 1 to"):
        training({}, {}, "")
    with pytest.raises(ValueError, match="expected 1 to"):
        decoding({}, "")
    with pytest.raises(ValueError, match="abacus"):
        measured("abacus")


def test_the_readme_quotes_the_file():
    """One more token after a little and after a million, and the long prompt, in milliseconds."""
    text, h200 = (ROOT / "README.md").read_text(encoding="utf-8"), measured("h200")
    token = curve(h200, "decode", "ours", "ms", batch=1)
    ours, twin = (curve(h200, "prefill", name, "ms")[32768] for name in ("ours", "twin"))
    many, twins = (
        curve(h200, "decode", name, "tokens_per_s", batch=64) for name in ("ours", "twin")
    )
    text = " ".join(text.split())
    assert (
        f"on with {many[8192]:,.0f}"[:-2] in text and f"twin with {twins[8192]:,.0f}"[:-2] in text
    )
    assert f"one more token takes {token[2**20]:.2f} ms, as after 1,024 ({token[1024]:.2f})" in text
    assert f"32,768 tokens is read in {ours:.0f} ms, by the twin in {twin:.0f}" in text
