"""A second Python process that runs checks: it stays warm, and it can be killed.

    worker = Worker(number)                  starts the process, and imports this lesson's checks
    worker.ask(number, function, seed)       (verdict, sentence), or Stopped

Functions travel by value (cloudpickle), with the helpers and constants of a notebook that they
use. A loop that never ends, a crash, or all the memory used up ends the worker and nothing else;
the next question starts a new one. Works wherever Python starts processes, Windows included.
"""

import atexit
import faulthandler
import os
import pickle
import subprocess
import sys
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread

SECONDS = 10.0  # for one check; a right answer takes well below one
START_SECONDS = 120.0  # for importing PyTorch on a busy machine
ORPHAN_SECONDS = 60.0  # a worker whose notebook was killed in the middle of a check ends itself

UTF8 = {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8"}  # a function may print λ on every system


class Stopped(Exception):
    """The worker ended before it answered; the message says why."""


class Worker:
    """The process, as seen from the notebook."""

    def __init__(self, number: str):
        path = os.pathsep.join(sys.path)  # helpers of the student's are found where they were
        self.process = subprocess.Popen(
            [sys.executable, "-m", "transnormer_edu.exercises.worker", number],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path, "TRITON_INTERPRET": "1", **UTF8},
        )
        self.answers = SimpleQueue()
        Thread(target=self._listen, daemon=True).start()
        atexit.register(self.stop)
        self.ready = False

    def _listen(self) -> None:
        """Hands on what the process says; None when it says no more."""
        try:
            while True:
                self.answers.put(pickle.load(self.process.stdout))
        except (EOFError, OSError, pickle.UnpicklingError, ValueError):
            self.answers.put(None)

    def ask(self, number: str, function: bytes, seed: int) -> tuple[str, str]:
        """("right" | "wrong" | "unknown", sentence) for a pickled function."""
        try:
            if not self.ready:
                self._wait(START_SECONDS)
                self.ready = True
            pickle.dump((number, function, seed), self.process.stdin)
            self.process.stdin.flush()
            return self._wait(SECONDS)
        except BrokenPipeError:
            self.stop()
            raise Stopped("the process that checks had ended; check once more") from None
        except BaseException:  # out of time, or the student's own Ctrl-C
            self.stop()
            raise

    def _wait(self, seconds: float):
        try:
            answer = self.answers.get(timeout=seconds)
        except Empty:
            raise Stopped(f"no answer after {seconds:.0f} s: does a loop never end?") from None
        if answer is None:
            raise Stopped("your function ended the whole Python process, or used all its memory")
        return answer

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        atexit.unregister(self.stop)
        self.process.kill()
        self.process.wait()


def main() -> None:
    """In the worker: answer questions until the notebook is gone."""
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "r+") as nowhere:  # what a function prints must not mix with answers
        os.dup2(nowhere.fileno(), 1)
        sys.stdin = nowhere
        import torch

        torch.set_num_threads(1)  # the sizes are tiny
        _warm_up(sys.argv[1])
        _say(answers, "ready")
        while True:
            try:
                question = pickle.load(questions)
            except EOFError:
                return
            faulthandler.dump_traceback_later(ORPHAN_SECONDS, exit=True)
            _say(answers, _answer(*question))
            faulthandler.cancel_dump_traceback_later()


def _warm_up(number: str) -> None:
    """Import now what judging this exercise takes, and every other of its lesson."""
    from transnormer_edu.exercises.catalog import find

    with suppress(ValueError):  # a number that is not there: the answer will say so
        if find(number).number.startswith("11."):
            import torch._dynamo  # noqa: F401 (a first optimiser imports it: no student's second)


def _answer(number: str, pickled: bytes, seed: int) -> tuple[str, str]:
    from transnormer_edu.exercises.catalog import find
    from transnormer_edu.exercises.judge import judge

    try:
        exercise = find(number)
    except ValueError as error:
        return "unknown", str(error)
    wrong = judge(exercise, pickle.loads(pickled), seed)
    return ("wrong", wrong) if wrong else ("right", exercise.title)


def _say(stream, what) -> None:
    pickle.dump(what, stream)
    stream.flush()


if __name__ == "__main__":
    main()
