"""Jobs of several processes, started by torchrun: what each can know before PyTorch is there."""

import json
import os
import sys
import time
from contextlib import suppress

PATIENCE = 10  # seconds in which process 0 may say the same; torchrun then ends the others


def in_a_job() -> bool:
    """Whether this is one of the processes that `torchrun` (or a like of it) has started."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def is_first() -> bool:
    """Whether this is process 0, the one that speaks; also where there is only one."""
    return not in_a_job() or os.environ["RANK"] == "0"


def may_restart() -> bool:
    """Whether torchrun starts this job again when a process dies (`--max-restarts`)."""
    return int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) > 0


def say(text: str) -> None:
    """Print, in the first process alone."""
    if is_first():
        print(text, flush=True)


def complain(sentence: str) -> None:
    """Say what is wrong, once for the whole job.

    Process 0 speaks at once; another one only if it is the only one that found something wrong.
    torchrun's report at the end quotes the sentence in place of a traceback.
    """
    if report := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        about = {"message": sentence, "extraInfo": {"timestamp": str(int(time.time()))}}
        with suppress(OSError), open(report, "w", encoding="utf-8") as file:
            json.dump({"message": about}, file)
    if not is_first():
        time.sleep(PATIENCE)
    print(sentence, file=sys.stderr, flush=True)


def run(app) -> None:
    """Call a typer application; what is wrong with its options is said once, too."""
    if not in_a_job():
        app()
    try:
        sys.exit(app(standalone_mode=False))
    except Exception as error:
        if not hasattr(error, "format_message"):  # not about the options
            raise
        complain(f"transnormer-edu: {error.format_message()}")
        sys.exit(2)
