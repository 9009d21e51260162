"""Wrong kinds of things at public entries: each is refused in one sentence, by name."""

import math

import pytest

from tests.models import linear
from transnormer_edu import TransNormerConfig, TransNormerLLM
from transnormer_edu.data import read_text_file, zlib_bits_per_byte
from transnormer_edu.evaluate import Score, evaluate
from transnormer_edu.info import describe
from transnormer_edu.layers import GLA, Block
from transnormer_edu.pretrained import config_of, load_pretrained
from transnormer_edu.run_folder import export
from transnormer_edu.settings import TrainSettings
from transnormer_edu.tokenizer import Tokenizer
from transnormer_edu.train import load_trained, resume

BYTES = Tokenizer.of_bytes()
PATHS = (
    TransNormerLLM.from_pretrained,
    load_pretrained,
    config_of,
    load_trained,
    resume,
    Tokenizer.load,
    read_text_file,
    lambda path: export(path, "folder"),
    lambda path: linear().save_pretrained(path),
)


@pytest.mark.bad_input
@pytest.mark.parametrize("given", [None, 1, [], b"folder"], ids=repr)
@pytest.mark.parametrize("opens", PATHS)
def test_what_is_no_path_is_named(opens, given):
    with pytest.raises(TypeError, match=r"is a \w+, expected a path: a str or a Path"):
        opens(given)


@pytest.mark.bad_input
@pytest.mark.parametrize("read", [lambda texts: Tokenizer.train(texts), BYTES.encode_documents])
def test_what_are_no_texts_is_named(read):
    for texts, sentence in (
        ([1, 2], "text is a int, expected a str"),
        (["the cat", None], "text is a NoneType, expected a str"),
        ([b"the cat"], "text is a bytes, expected a str"),
        (b"the cat", "texts is a bytes, expected several texts"),
        (None, "texts is a NoneType, expected several texts"),
    ):
        with pytest.raises(TypeError, match=sentence):
            read(texts)
    with pytest.raises(ValueError, match="letter 1 of the text is no Unicode"):
        read(["the cat", "a\ud800"])


@pytest.mark.bad_input
@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda: zlib_bits_per_byte(b"text"), "text is a bytes, expected a str"),
        (lambda: TrainSettings.from_dict(None), "settings is a NoneType, expected a dict"),
        (lambda: GLA({}, 0), "config is a dict, expected a TransNormerConfig"),
        (lambda: Block(None, 0), "config is a NoneType, expected a TransNormerConfig"),
        (lambda: describe("385m"), "config is a str, expected a model's config"),
    ],
)
def test_wrong_kinds_are_named(call, sentence):
    with pytest.raises(TypeError, match=sentence):
        call()


@pytest.mark.bad_input
def test_a_batch_of_no_size_is_named():
    sizes = dict(vocab_size=259, dim=6, layers=1, heads=1)
    model = TransNormerLLM(TransNormerConfig(**sizes))
    with pytest.raises(ValueError, match="batch_size is None, expected a whole number"):
        evaluate(model, BYTES, "text", batch_size=None)


def test_a_score_that_is_no_number_says_so():
    assert math.isnan(Score(math.nan, 3, 5).perplexity)
    assert Score(3000.0, 3, 5).perplexity == math.inf
