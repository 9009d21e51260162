"""The command `import`: what a released folder holds, what is assumed, and whether it writes."""

from collections.abc import Iterator

import torch

from transnormer_edu import check
from transnormer_edu.checkpoint import HEAD, Found, find
from transnormer_edu.checksums import INDEX
from transnormer_edu.config import TransNormerConfig
from transnormer_edu.info import scaled, summarise
from transnormer_edu.model import TransNormerLLM
from transnormer_edu.released_tokenizers import load_tokenizer
from transnormer_edu.write import printable, write_text

UNVERIFIED = "never verified with real weights"
ASSUMED = {
    "transnormerllm": "the first series. Folders of TransNormerLLM2 look the same, but its blocks "
    "are parallel: variant transnormerllm2",
    "transnormerllm2": "token and channel mixer side by side, both reading the block's input; "
    + UNVERIFIED,
    "transnormerllm3": "a gate of rank 16, found by its shape, and all else as in the first "
    f"series; {UNVERIFIED}",
}


def report(
    name: str,
    *,
    variant: str | None = None,
    subfolder: str | None = None,
    dtype: str | None = None,
    prompt: str = "Hello, my name is",
    max_new_tokens: int = 24,
) -> Iterator[str]:
    """Line by line what was found, assumed and is needed; then the weights are read, with a bar.

    Errors: those of `TransNormerLLM.from_pretrained`, before a line that is not true.
    """
    dtype = None if dtype is None else check.float_type("dtype", dtype)
    found = find(name, TransNormerConfig, variant, subfolder)
    yield from _found(found)
    yield f"assumed    {_assumed(found.config, variant)}"
    yield from _needed(found, dtype)
    choices = dict(variant=variant, subfolder=subfolder, progress=True)
    model = TransNormerLLM.from_pretrained(name, dtype, **choices).eval()
    yield "loaded     every tensor is there, and of the shape that the config says"
    try:
        tokenizer = load_tokenizer(found.folder)
    except (FileNotFoundError, ImportError) as error:
        yield f"writes     not tried: {error}"
        return
    yield f"tokenizer  {tokenizer.vocab_size:,} ids"
    new = "".join(write_text(model, tokenizer, prompt, max_new_tokens))
    yield f"writes     {prompt}{printable(new)}"


def _found(found: Found) -> Iterator[str]:
    config, summary = found.config, summarise(found.config)
    files = sorted({one.file for one in found.stored.values()})
    size = sum(file.stat().st_size for file in files)
    types = sorted({str(one.tensor.dtype).removeprefix("torch.") for one in found.stored.values()})
    yield (
        f"found      {config.layers} layers, width {config.dim}, {config.heads} heads, GLU width "
        f"{config.glu_dim}, vocabulary {config.vocab_size:,}: {summary.parameters:,} parameters"
    )
    form = f", {config.quantization.bits}-bit GPTQ" if config.quantization else ""
    names = files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more"
    yield f"           {names}: {scaled(size, 'B')} of {', '.join(types)}{form}"
    yield f"           {_checksums(found)}"


def _checksums(found: Found) -> str:
    without = sum(one.crc is None for one in found.stored.values())
    if without:
        return (
            f"{without} of {len(found.stored)} tensors have no checksum in this format: a changed "
            f"number in them cannot be noticed (save_pretrained writes {INDEX}, with checksums)"
        )
    return "all tensors have checksums, which are compared while they are read"


def _assumed(config: TransNormerConfig, variant: str | None) -> str:
    if variant is None:
        parallel, thin = config.block == "parallel", isinstance(config.gate, int)
        variant = "transnormerllm" + ("2" if parallel else "3" if thin else "")
    return ASSUMED[variant]


def _needed(found: Found, dtype: torch.dtype | None) -> Iterator[str]:
    size = 0
    for name, one in found.stored.items():
        wanted = dtype if dtype and one.tensor.is_floating_point() else one.tensor.dtype
        each = wanted.itemsize
        size += 0 if name == HEAD else each * one.tensor.numel()
    state = summarise(found.config).state_bytes
    logits = 4 * found.config.vocab_size
    yield (
        f"needs      {scaled(size, 'B')} of memory for the weights, on a CPU as on a GPU, never "
        "more than one copy; and for each text"
    )
    levels = sum(one.tensor.nbytes for name, one in found.stored.items() if "qweight" in name)
    if levels and found.config.quantization.desc_act:
        yield f"           (on a GPU {scaled(levels, 'B')} more, for levels sorted by their groups)"
    yield (
        f"           {scaled(state, 'B')} of state, however long it is, and {scaled(logits, 'B')} "
        "of logits"
    )
