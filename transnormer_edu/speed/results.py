"""The file of measured rows: JSON, written anew after each row, so that a cut run loses little.

    {"origin": {device, threads, date, python, torch, triton, commit}, "size": "385m",
     "copy_bytes_per_s": …, "matmul_flop_per_s": …, "rows": [{"what": "train", "model": "ours", …}]}

A file is one machine. A row that is there already is not measured again; one that is added by
another commit than the file's says so ("commit").
"""

import json
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import torch

from transnormer_edu.atomic import write_text
from transnormer_edu.speed.clock import copy_rate, matmul_rate

KEY = ("what", "model", "context", "batch", "parts")


class Results:
    """Rows in a file, and the moment after which none is begun.

    seconds    begin no row later than so many from now; None: all
    commit     of this code, where git does not know
    Errors: ValueError where the file holds another device's, version's or size's rows.
    """

    def __init__(
        self,
        path: str | Path,
        device: torch.device,
        size: str,
        seconds: float | None = None,
        commit: str | None = None,
    ):
        self.path, self.device = Path(path), device
        self.until = None if seconds is None else time.monotonic() + seconds
        now = origin(device, commit)
        if self.path.is_file():
            self.all = json.loads(self.path.read_text(encoding="utf-8"))
            may_differ = {name: now[name] for name in ("date", "commit")}
            there = {**self.all["origin"], **may_differ, "size": self.all["size"]}
            if there != {**now, "size": size}:
                raise ValueError(
                    f"{path} holds rows of {there}, but this is {now} and size {size}; choose "
                    "another file"
                )
        else:
            self.all = {"origin": now, "size": size} | {
                "copy_bytes_per_s": copy_rate(device),
                "matmul_flop_per_s": matmul_rate(device),
                "rows": [],
            }
            self._write()
        other = now["commit"] != self.all["origin"]["commit"]
        self.also = {"commit": now["commit"]} if other else {}

    def add(self, row: dict, measure: Callable[[], dict]) -> Iterator[str]:
        """Measure a row unless it is there, or time is up; the line that says what came of it.

        row       what it is called: "what", "model", "context", and where needed "batch", "parts"
        measure   gives the rest; what goes wrong in it becomes the row's "skipped"
        """
        if any(self._key(other) == self._key(row) for other in self.all["rows"]):
            return
        if self.until is not None and time.monotonic() > self.until:
            yield f"{named(row)}  time is up"
            return
        begin = time.monotonic()
        try:
            row = row | measure()
        except Exception as error:  # one row that fails must not cost the others
            row = row | {"skipped": f"{type(error).__name__}: {str(error)[:300]}"}
        self.all["rows"].append(row | self.also)
        self._write()
        yield f"{line(row)}  [{time.monotonic() - begin:.0f} s]"

    def skipped(self, row: dict) -> str:
        """Why the row of this name was not measured; "" if it was."""
        found = [r for r in self.all["rows"] if self._key(r) == self._key(row)]
        return found[-1].get("skipped", "") if found else ""

    def _key(self, row: dict) -> tuple:
        return tuple(row.get(name) for name in KEY)

    def _write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, json.dumps(self.all, indent=1) + "\n")


def origin(device: torch.device, commit: str | None = None) -> dict:
    """Where and with what: device, threads, day, versions, commit."""
    gpu = device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(device) if gpu else processor(),
        "threads": None if gpu else torch.get_num_threads(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": version_of("triton"),
        "transformers": version_of("transformers"),
        "commit": commit or git_commit(),
    }


def processor() -> str:
    """The CPU's name as Linux knows it, else what Python says of it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [text.split(":", 1)[1].strip() for text in lines if text.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def version_of(package: str) -> str | None:
    """A package's version, None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def git_commit() -> str:
    """The commit of this code, "unknown" outside git."""
    run = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return run.stdout.strip() or "unknown"


def named(row: dict) -> str:
    """What a row is called, as the beginning of its line."""
    cells = [f"{row['what']:8}{row['model']:7}n={row.get('context', '-'):<8}"]
    cells += [f"{name}={row[name]:<4}" for name in KEY[3:] if name in row]
    return " ".join(cells)


def line(row: dict) -> str:
    """A row as a line of the printed table."""
    if "skipped" in row:
        return f"{named(row)}  skipped: {row['skipped']}"
    return named(row) + "".join(
        say(row[name]) for name, say in SAID.items() if row.get(name) is not None
    )


SAID = {
    "ms": lambda ms: f"{ms:10.3f} ms",
    "tokens_per_s": lambda n: f"{n:10,.0f} tokens/s",
    "of_matmul_rate": lambda share: f"  MFU {share:.3f}",
    "cost": lambda cost: f"  with FSDP {100 * cost:+.1f} %",
    "of_weight_floor": lambda times: f"  {times:.2f} x weights",
    "activation_bytes": lambda size: f"  {size / 2**30:.2f} GiB kept",
    "peak_bytes": lambda size: f"  {size / 2**30:.2f} GiB at most",
    "softmax": lambda name: f"  {name}",
    "loss_gap": lambda gap: f"  loss {gap:.1e} from eager",
    "errors": lambda errors: "  " + ", ".join(f"{k} {v:.1e}" for k, v in errors.items()),
    "holds": lambda holds: f"  {'ok' if holds else 'WRONG'}",
}
