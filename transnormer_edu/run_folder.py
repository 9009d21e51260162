"""A training run on disk: what is written, and how it survives being killed.

    runs/NAME/
      settings.json    the model's config, the settings, fingerprints of corpus and tokenizer,
                       versions and device: enough to run it again
      tokenizer.json
      log.csv          one line per step
      log.json         one entry per look at the held-out text, and what it was on
      checkpoint.pt    everything that the next step depends on
      best/            the weights that did best on the held-out text, in the released format, with
                       tokenizer and model card
      last/            the same after the last step

Every file is written whole or not at all (atomic.py). log.csv alone grows line by line; when a run
goes on, the lines after its checkpoint are cut off, since those steps are done again.
"""

import csv
import json
import platform
import zipfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import tokenizers
import torch
from torch import nn

from transnormer_edu import check, checkpoint
from transnormer_edu.atomic import (
    room_or_a_sentence,
    sweep,
    whole_file,
    whole_folder,
    write_text,
)
from transnormer_edu.checksums import INDEX, seal
from transnormer_edu.data import Corpus, zlib_bits_per_byte
from transnormer_edu.pretrained import load_pretrained
from transnormer_edu.released_config import config_to_json
from transnormer_edu.released_tokenizers import load_tokenizer
from transnormer_edu.settings import TrainSettings
from transnormer_edu.token_file import TokenFile
from transnormer_edu.weight_files import WEIGHTS

CHECKPOINT, SETTINGS, LOG, LOOKS = "checkpoint.pt", "settings.json", "log.csv", "log.json"
OURS = (CHECKPOINT, SETTINGS, LOG, LOOKS, "tokenizer.json", "best", "last")
ENTRIES = ("about", "step", "model", "optimizer", "random", "best", "looks", "seconds")
COLUMNS = (
    "step", "loss", "learning_rate", "gradient_norm", "tokens", "seconds",
    "held_out_bits_per_byte",
)  # fmt: skip


def is_run(folder: str | Path) -> bool:
    """Whether a training run can go on from here (else it may be a folder of weights)."""
    return (Path(folder) / CHECKPOINT).is_file()


def weights_folder(folder: str | Path) -> Path:
    """The folder with weights that `folder` means: itself, or the best/ or last/ of a run."""
    folder = check.path("folder", folder)
    for candidate in (folder, folder / "best", folder / "last"):
        if (candidate / "config.json").is_file():
            return candidate
    return folder  # whoever opens it says what is missing


class RunFolder:
    """The files of one run: `RunFolder.start(...)` a new one, or `RunFolder(path).reopen()`."""

    def __init__(self, path: str | Path):
        self.path = check.path("folder", path)

    @classmethod
    def start(cls, path: str | Path, about: dict, tokenizer) -> "RunFolder":
        """A new run. FileExistsError where there is one already, OSError where none can be."""
        self = cls(path)
        if is_run(self.path) or weights_folder(self.path) != self.path:
            raise FileExistsError(
                f"{self.path} already holds a training run: go on with it (--from {self.path}) or "
                f"give the new one another name."
            )
        if self.path.exists() and not self.path.is_dir():
            raise FileExistsError(f"{self.path} is a file, expected a folder: give another name.")
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(
                f"the folder {self.path} cannot be made ({error.strerror}): choose another place."
            ) from error
        tokenizer.save(self.path)
        write_text(self.path / SETTINGS, json.dumps(about | machine(about), indent=2) + "\n")
        self._write_log([])
        return self

    def reopen(self) -> dict:
        """The checkpoint of an earlier run, with everything later than it removed.

        Errors: FileNotFoundError without a checkpoint; ValueError for a damaged one.
        """
        if not is_run(self.path):
            raise FileNotFoundError(
                f"There is no {CHECKPOINT} in {self.path}: expected the folder of a training run, "
                f"such as runs/NAME."
            )
        for name in OURS:
            sweep(self.path / name)
        try:
            with zipfile.ZipFile(self.path / CHECKPOINT) as archive:  # torch.load looks at no sums
                if damaged := archive.testzip():
                    raise ValueError(f"bad checksum of {damaged}")
            state = torch.load(self.path / CHECKPOINT, map_location="cpu", weights_only=True)
            lacking = [entry for entry in ENTRIES if entry not in state]
            if lacking:
                raise ValueError(f"it lacks {', '.join(lacking)}")
        except Exception as error:  # torch raises many kinds for a file that is no checkpoint
            raise ValueError(
                f"{self.path / CHECKPOINT} is damaged or no checkpoint of ours ({error}): start "
                f"from the weights instead, --from {self.path / 'best'}."
            ) from error
        done = [line for line in self._read_log() if int(line["step"]) <= state["step"]]
        self._write_log(done)
        return state

    def save_checkpoint(self, state: dict) -> None:
        """Replace checkpoint.pt by all `ENTRIES`. DiskFull leaves the old one."""
        with whole_file(self.path / CHECKPOINT) as file:
            torch.save(state, file)

    def log(self, step, seconds: float) -> None:
        """Add the line of one `Step` to log.csv; repr writes a number so that no bit is lost."""
        held_out = repr(step.held_out.bits_per_byte) if step.held_out else ""
        numbers = (step.loss, step.learning_rate, step.gradient_norm)
        line = [step.step, *map(repr, numbers), step.tokens, f"{seconds:.2f}", held_out]
        path = self.path / LOG
        with room_or_a_sentence(path), open(path, "a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow(line)

    def log_looks(self, looks: list[dict], about: dict) -> None:
        """Replace log.json: what the held-out text cost at each look."""
        write_text(self.path / LOOKS, json.dumps(about | {"looks": looks}, indent=2) + "\n")

    def save_model(self, name: str, model: nn.Module, tokenizer, about: dict) -> None:
        """Replace the folder best/ or last/.

        What the weights are (step, score, settings, fingerprints) is stored inside the weight file,
        so that the two can never be parted; README.md says the same in words.
        """
        save_model(self.path / name, model, tokenizer, about)

    def _read_log(self) -> list[dict]:
        path = self.path / LOG
        if not path.exists():
            return []
        text = path.read_text(encoding="utf-8", errors="replace")
        # A process that was killed while it wrote leaves half a line, which is dropped.
        header, *lines = csv.reader(text[: text.rfind("\n") + 1].splitlines() or [""])
        if tuple(header) != COLUMNS or not all(_is_log_line(line) for line in lines):
            raise ValueError(
                f"{path} is damaged: expected the columns {','.join(COLUMNS)} and a step in every "
                "line; mend it, or move it away to go on with a new one."
            )
        return [dict(zip(COLUMNS, line, strict=True)) for line in lines]

    def _write_log(self, lines: list[dict]) -> None:
        rows = [",".join(COLUMNS), *(",".join(line[c] for c in COLUMNS) for line in lines)]
        write_text(self.path / LOG, "\n".join(rows) + "\n")


def _is_log_line(line: list[str]) -> bool:
    return len(line) == len(COLUMNS) and line[0].isdecimal()


def save_model(folder: Path, model: nn.Module, tokenizer, about: dict) -> None:
    """Released format, tokenizer and model card, with `about` inside the weight file."""
    notes = {key: v if isinstance(v, str) else json.dumps(v) for key, v in about.items()}
    with whole_folder(folder, last=WEIGHTS, seal=INDEX) as part:
        checkpoint.write(part, model, notes)
        tokenizer.save(part)
        write_text(part / "README.md", model_card(model, about))
        seal(part, WEIGHTS)


def export(source: str | Path, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
    """The weights of a run, or of a folder that one wrote, in `dtype`: half the size, to give away.

    Errors: FileExistsError where `folder` exists; ValueError for weights without our notes.
    """
    source, folder = weights_folder(source), check.path("folder", folder)
    if folder.exists():
        raise FileExistsError(f"{folder} exists already: remove it or choose another name.")
    model, tokenizer = load_pretrained(source, dtype), load_tokenizer(source)
    notes = read_notes(source)
    if not notes:
        raise ValueError(f"{source} does not say what it was trained on: take a folder of a run.")
    save_model(folder, model, tokenizer, notes)


def read_notes(folder: str | Path) -> dict:
    """What `save_model` stored inside the weight file of `folder`; {} for another's weights.

    Errors: FileNotFoundError without a model.safetensors; ValueError for a damaged one.
    """
    notes = checkpoint.read_notes(weights_folder(folder))
    if "corpus" not in notes:
        return {}
    plain = ("format", "tokenizer_sha256")
    return {key: v if key in plain else json.loads(v) for key, v in notes.items()}


def about_run(
    model: nn.Module, tokenizer, corpus: Corpus | TokenFile, settings: TrainSettings
) -> dict:
    """What a run is: the model, the text and the settings. Plain values, no paths."""
    text = corpus.held_out_text
    return {
        "config": config_to_json(model.config),
        "parameters": sum(p.numel() for p in model.parameters()),
        "settings": asdict(settings),
        "corpus": {
            "name": corpus.name,
            "sha256": corpus.fingerprint,
            "train_bytes": corpus.train_bytes,
            "held_out_bytes": len(text.encode()),
            "zlib_bits_per_byte": zlib_bits_per_byte(text),
        },
        "tokenizer_sha256": tokenizer.fingerprint,
    }


def machine(about: dict) -> dict:
    """What else a result depends on: versions, device, threads; and the time."""
    device = TrainSettings.from_dict(about["settings"]).torch_device()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "tokenizers": tokenizers.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def model_card(model: nn.Module, about: dict) -> str:
    """README.md of a folder of weights: what they are, from what, how good, and what not."""
    config, corpus, score = model.config, about["corpus"], about["held_out"]
    embedding = config.vocab_size * config.dim
    origin = {
        "english": "Python's own documentation topics and docstrings (PSF License 2.0)",
        "source": "the Python standard library's source (PSF License 2.0 and its parts' own)",
    }.get(corpus["name"], f"the user's own text {corpus['name']}, under its own licence")
    return f"""# A small {type(model).__name__}

{about["parameters"]:,} parameters ({about["parameters"] - embedding:,} outside the embedding):
width {config.dim}, {config.layers} layers, {config.heads} heads, GLU width {config.glu_dim},
vocabulary {config.vocab_size}. Made by this project's `transnormer-edu train`.

- **Learned from** {origin}; {corpus["train_bytes"] / 1e6:.2f} MB,
  corpus sha256 `{corpus["sha256"]}`,
  tokenizer sha256 `{about["tokenizer_sha256"]}`.
- **On held-out text**, never trained on, at step {about["step"]} of
  {about["settings"]["steps"]}: {_in_words(score)} of its
  {corpus["held_out_bytes"]:,} bytes. `zlib -9` needs {corpus["zlib_bits_per_byte"]:.3f} for all.
- **Good for** lessons and tests. It writes text that resembles its corpus and knows nothing: do not
  use it for anything that has to be true.

Settings: `{json.dumps(about["settings"])}`

These numbers are also inside the weight file itself, in its safetensors metadata.
"""


def _in_words(score: dict | None) -> str:
    if score is None:
        return "measured on none"
    return (
        f"{score['bits_per_byte']:.3f} bits per byte, loss\n  {score['loss']:.3f} nats per token, "
        f"measured on {score['bytes']:,}"
    )
