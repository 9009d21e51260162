"""What is installed here, what works, what does not, and how to mend it.

    for check in checks():
        print(check.mark, check.name, check.what, check.mend)

Each check is a function that looks, changes nothing, and gives a `Check`. A check that itself
fails becomes a failed check: the doctor does not fall ill.
"""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
OLDEST_PYTHON = (3, 11)
DISK_GB = 1.0  # checkpoints and pages of the whole course
REINSTALL = "install the course's packages again: `python3 start.py setup`"


@dataclass(frozen=True)
class Check:
    """One finding. `needed`: nothing works without it; otherwise only what `what` names."""

    name: str
    ok: bool
    what: str
    mend: str = ""
    needed: bool = True

    @property
    def mark(self) -> str:
        return "ok" if self.ok else "MISSING" if self.needed else "without"


def checks() -> list[Check]:
    """All findings, in the order in which one would mend them."""
    looks = (python, torch, gpu, triton, kernels, tokenizers, jupyter, weights, corpus, disk)
    return [_safely(look) for look in looks]


def healthy(findings: list[Check]) -> bool:
    """True when nothing that is needed is missing."""
    return all(finding.ok or not finding.needed for finding in findings)


def _safely(look: Callable[[], Check]) -> Check:
    try:
        return look()
    except Exception as error:
        what = f"the check ended in {type(error).__name__}: {error}"
        return Check(look.__name__, False, what, REINSTALL)


def python() -> Check:
    what = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    ok = sys.version_info >= OLDEST_PYTHON
    return Check("Python", ok, what, "" if ok else "install Python 3.11 or later")


def torch() -> Check:
    if not _installed("torch"):
        return Check("PyTorch", False, "not installed", REINSTALL)
    import torch

    total = torch.ones(2, 3) @ torch.ones(3, 2)
    ok = bool((total == 3).all())
    what = f"{torch.__version__}, {torch.get_num_threads()} of {os.cpu_count()} processors"
    return Check("PyTorch", ok, what, "" if ok else REINSTALL)


def gpu() -> Check:
    import torch

    if not torch.cuda.is_available():
        what = "none found: everything runs on the processor, kernels in Triton's interpreter"
        return Check("GPU", True, what, needed=False)
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    bf16 = "with" if torch.cuda.is_bf16_supported() else "without"
    what = f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB, {bf16} bfloat16"
    return Check("GPU", True, what, needed=False)


def triton() -> Check:
    if _installed("triton"):
        return Check("Triton", True, importlib.metadata.version("triton"), needed=False)
    if sys.platform != "linux":
        what = f"not for {platform.system()}: the kernel lessons show their results, all else runs"
        mend = "to run the kernels, use Linux (on Windows: WSL)"
        return Check("Triton", False, what, mend, needed=False)
    return Check("Triton", False, "not installed: the kernel lessons need it", REINSTALL, False)


def kernels() -> Check:
    if not _installed("triton"):
        what = "not tried, they need Triton; lightning_attention() uses PyTorch instead"
        return Check("the kernels", False, what, needed=False)
    if not _installed("transnormer_kernels"):
        return Check("the kernels", False, "transnormer_kernels is not installed", REINSTALL)
    return Check("the kernels", True, "transnormer_kernels is installed", needed=False)


def tokenizers() -> Check:
    if not _installed("tokenizers"):
        return Check("tokenizers", False, "not installed", REINSTALL)
    from tokenizers import Tokenizer, models

    Tokenizer(models.BPE())
    return Check("tokenizers", True, importlib.metadata.version("tokenizers"))


def jupyter() -> Check:
    wanted = ("jupyterlab", "ipywidgets", "nbclient", "nbconvert")
    missing = [name for name in wanted if not _installed(name)]
    if missing:
        what = f"{', '.join(missing)} not installed: lessons cannot be run here"
        mend = "`pip install 'transnormer-edu[course]'`, or `python3 start.py setup` in a checkout"
        return Check("JupyterLab", False, what, mend, needed=False)
    versions = (f"{name} {importlib.metadata.version(name)}" for name in wanted[:2])
    return Check("JupyterLab", True, ", ".join(versions), needed=False)


def weights() -> Check:
    found = sorted((PACKAGE / "weights").glob("**/*.safetensors"))
    if not found:
        what = f"no *.safetensors under {PACKAGE / 'weights'}"
        mend = "get the file back (`git checkout -- transnormer_edu/weights`) or train one"
        return Check("trained weights", False, what, mend, needed=False)
    names = ", ".join(f"{p.parent.name} ({p.stat().st_size / 2**20:.1f} MiB)" for p in found)
    return Check("trained weights", True, names, needed=False)


def corpus() -> Check:
    mend = "install the full Python of your system (the docstrings alone will do, too)"
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some Linux packages leave it out
        return Check("English text", False, "pydoc's topics are missing", mend, needed=False)
    size = sum(map(len, topics.values()))
    what = f"pydoc's topics can be read ({size / 1e6:.1f} million characters)"
    return Check("English text", size > 0, what, mend, needed=False)


def disk() -> Check:
    here = Path.cwd()
    free = shutil.disk_usage(here).free / 1e9
    ok = free >= DISK_GB
    mend = "" if ok else f"free some: training and pages want {DISK_GB:.0f} GB"
    return Check("disk", ok, f"{free:.1f} GB free in {here}", mend)


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
