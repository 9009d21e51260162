"""Where a model is: a folder here, or one that is downloaded from Hugging Face's hub."""

import re
from pathlib import Path

from transnormer_edu import check

# Never a program: the models' own code is not needed here. (A * goes for folders, too: without a
# choice weights in sub-folders stay where they are, since one repository has hundreds of GB there.)
SMALL = ("*.json", "*.model", "*.tiktoken")
WEIGHTS = ("*.bin", "*.safetensors")


def local_folder(name: str | Path, subfolder: str | None = None) -> Path:
    """The folder of that name; or, where there is none and `name` is like "OpenNLPLab/...", the
    files of that repository on the hub, downloaded once and kept where huggingface_hub keeps them.

    subfolder    download the weights in this one of its folders alone

    Errors: OSError, in one sentence, for a repository that cannot be downloaded.
    """
    path = check.path("folder", name)
    if path.exists() or not isinstance(name, str) or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return path
    from huggingface_hub import snapshot_download

    weights = [f"{subfolder}/{pattern}" for pattern in WEIGHTS] if subfolder else WEIGHTS
    others = None if subfolder else [f"*/{pattern}" for pattern in WEIGHTS]
    try:
        return Path(
            snapshot_download(name, allow_patterns=[*SMALL, *weights], ignore_patterns=others)
        )
    except Exception as error:  # the hub's library raises those of whatever it is built on
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise OSError(
            f"{name} is no folder here, and Hugging Face's hub did not give it "
            f"({first[:200]}); download it where there is a network, and give its folder"
        ) from None


def split(folder: Path, subfolder: str | None) -> tuple[Path, Path]:
    """Where the weights are, and where their config.json is: a sub-folder may have its own."""
    if subfolder is None:
        return folder, folder
    weights = folder / subfolder
    if not weights.is_dir():
        raise FileNotFoundError(f"there is no folder {subfolder} in {folder}")
    return weights, weights if (weights / "config.json").is_file() else folder


def revisions(folder: Path) -> str:
    """What to add to a sentence about a folder without a model: which of its folders have one."""
    found = sorted(
        child.name
        for child in (folder.iterdir() if folder.is_dir() else ())
        if child.is_dir() and any(any(child.glob(pattern)) for pattern in (*WEIGHTS, "config.json"))
    )
    if not found:
        return ""
    return f". Its sub-folders hold some: choose one, such as subfolder={found[-1]!r}"
