"""`transnormer-edu import`: what it says of a folder is true, and the folder is read whole."""

import io
import shutil
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from tests import released
from tests.models import linear
from tests.test_gptq import gptq_folder
from transnormer_edu.cli import app
from transnormer_edu.tokenizer import Tokenizer

GOLDEN = Path(__file__).parent / "data" / "released_small"


def run(*arguments):
    done = CliRunner().invoke(app, ["import", *map(str, arguments)])
    return done.exit_code, done.output


def test_a_released_folder(tmp_path):
    folder = Path(shutil.copytree(GOLDEN, tmp_path / "m"))
    code, said = run(folder)
    assert code == 0
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    numbers = sum(t.numel() for t in tensors.values()) - 151 * 64  # the head is the embedding
    sizes = "3 layers, width 64, 4 heads, GLU width 96, vocabulary 151"
    assert f"{sizes}: {numbers:,} parameters" in said
    assert "pytorch_model.bin: 551 kB of float32" in said
    assert "all tensors have checksums" in said
    assert "the first series. Folders of TransNormerLLM2 look the same" in said
    assert f"needs      {4 * numbers / 1e3:.0f} kB of memory for the weights" in said
    assert "writes     not tried: there is no tokenizer in" in said
    assert f"needs      {2 * numbers / 1e3:.0f} kB" in run(folder, "--dtype", "bfloat16")[1]


def test_a_folder_with_a_tokenizer_writes(tmp_path):
    model = linear(torch.float32, vocab_size=259)
    model.save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors.index.json").unlink()
    Tokenizer.of_bytes().save(tmp_path / "m")
    code, said = run(tmp_path / "m", "--prompt", "The cat", "--max-new-tokens", "5")
    assert code == 0 and "writes     The cat" in said
    assert "tensors have no checksum in this format" in said


def test_sentencepiece(tmp_path):
    library = pytest.importorskip("sentencepiece")
    file = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat"] * 9), model_writer=file, vocab_size=16,
        model_type="bpe", hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    size = library.SentencePieceProcessor(model_proto=file.getvalue()).vocab_size()
    linear(torch.float32, vocab_size=size).save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "tokenizer.model").write_bytes(file.getvalue())
    code, said = run(tmp_path / "m", "--prompt", "the cat")
    assert code == 0, said
    assert f"tokenizer  {size} ids" in said and "writes     the cat" in said


def test_4_bits_and_the_later_series(tmp_path):
    folder, *_ = gptq_folder(tmp_path)
    code, said = run(folder)
    assert code == 0 and "4-bit GPTQ" in said and "have no checksum" in said
    assert "GPU 8.64 kB more, for levels sorted" in said
    form = "TransNormerLLM2-1B-300B"
    released.write_folder(tmp_path / form, form, released.random_tensors(form))
    code, said = run(tmp_path / form)
    assert code == 1 and "say variant='transnormerllm2'" in said and "found" not in said
    code, said = run(tmp_path / form, "--variant", "transnormerllm2")
    assert code == 0 and "assumed    token and channel mixer side by side" in said


def test_damage_is_a_sentence(tmp_path):
    folder = Path(shutil.copytree(GOLDEN, tmp_path / "m"))
    data = bytearray((folder / "pytorch_model.bin").read_bytes())
    data[300_000] ^= 1
    (folder / "pytorch_model.bin").write_bytes(data)
    code, said = run(folder)
    assert code == 1 and "is damaged, its checksum is not" in said and "loaded" not in said
    code, said = run(GOLDEN, "--dtype", "add")
    assert code == 1 and "dtype is 'add', expected a floating type" in said and "found" not in said
    code, said = run(tmp_path / "nowhere")
    assert code == 1 and "no config.json in" in said
