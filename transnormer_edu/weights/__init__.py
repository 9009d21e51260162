"""Small trained models that come with the package; each folder has a model card (README.md)."""

from pathlib import Path


def small_model_folder() -> Path:
    """Folder of the small TransNormerLLM that the lessons use, trained by `transnormer-edu train`.

    Raises FileNotFoundError where the package was installed without its weights.
    """
    folder = Path(__file__).parent / "small"
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"no weights in {folder}; install the whole package, or train your own: "
            "transnormer-edu train, then --model runs/small"
        )
    return folder
