"""Small trained models that come with the package; each folder has a model card (README.md)."""

from pathlib import Path

NAMES = ("transnormerllm", "linear", "softmax")


def small_model_folder(name: str = "transnormerllm") -> Path:
    """Folder of one of the small models of the lessons, each trained by `transnormer-edu train`.

    name    "transnormerllm"; "linear", the same without decay; or "softmax", its softmax twin

    Raises ValueError for another name, FileNotFoundError where the weights were not installed.
    """
    if name not in NAMES:
        raise ValueError(f"there is no small model {name!r}, expected one of {', '.join(NAMES)}")
    folder = Path(__file__).parent / "compare" / name
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"no weights in {folder}; install the whole package, or train your own: "
            "transnormer-edu train, then --model runs/small"
        )
    return folder
