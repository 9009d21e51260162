"""A second Python process that runs checks: it stays warm, and what runs in it can be killed.

    worker = Worker(number)                  starts the process, and imports this lesson's checks
    worker.ask(number, function, seed)       (verdict, sentence), or Stopped

Functions travel by value (cloudpickle), with the helpers and constants of a notebook that they
use. On Linux each check is a fork of the warm process: whatever a function does to Python ends with
its check. Elsewhere the process itself runs it, and where that ends, the next question starts a new
one. So a loop that never ends, a crash, or all the memory used up costs one exercise and no other.
"""

import atexit
import faulthandler
import math
import os
import pickle
import secrets
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from select import select
from threading import Event, Thread

COMPUTING = 2.0  # seconds of the processor for a function, all its calls; a right one takes 0.3
WAITING = 3.0  # seconds in which it does nothing at all
SECONDS = 30.0  # for one check, whatever it does and however busy the machine
START_SECONDS = 120.0  # for importing PyTorch on a busy machine
ORPHAN_SECONDS = 60.0  # a worker whose notebook was killed in the middle of a check ends itself

FORKS = sys.platform == "linux"  # macOS has it too, but its libraries do not bear it
UTF8 = {"PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8"}  # a function may print λ on every system


class Stopped(Exception):
    """A check ended without an answer; the message says why."""


class Worker:
    """The process, as seen from the notebook. Where it `forks` no check leaves a trace in it."""

    def __init__(self, number: str, folder: str | None = None):
        self.forks = FORKS
        # No module of a hand-in may take the place of one of ours: its folder comes last (`main`).
        path = os.pathsep.join(place for place in sys.path if place not in ("", folder))
        how = ["fork"] if self.forks else []
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "transnormer_edu.exercises.worker", number, *how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
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
            secret = secrets.token_hex()
            pickle.dump((secret, number, function, seed, SECONDS), self.process.stdin)
            self.process.stdin.flush()
            verdict, sentence = self._wait(SECONDS + (1 if self.forks else 0), secret)
        except BrokenPipeError:
            self.stop()
            raise Stopped("the process that checks had ended; check once more") from None
        except BaseException:  # out of time, or the student's own Ctrl-C
            self.stop()
            raise
        if verdict == "stopped":
            if not self.forks:
                self.stop()
            raise Stopped(sentence)
        return verdict, sentence

    def _wait(self, seconds: float, secret: str = ""):
        """The next answer that bears the secret: others were written by the function."""
        end = time.monotonic() + seconds
        while True:
            try:
                said = self.answers.get(timeout=max(0, end - time.monotonic()))
            except Empty:
                raise Stopped(_too_long(SECONDS)) from None
            if said is None:
                raise Stopped(GONE)
            if answer := _true(said, secret):
                return answer

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> None:
        atexit.unregister(self.stop)
        self.process.kill()
        self.process.wait()


GONE = "your function ended the whole Python process, or used all its memory"


def _too_long(seconds: float) -> str:
    return f"no answer after {seconds:.0f} s: does a loop never end?"


# ------------------------------------------------------------------------------ in the process


def main() -> None:
    """Answer questions until the notebook is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who interrupts the notebook does not mean us
    questions, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "r+") as nowhere:  # what a function prints must not mix with answers
        os.dup2(nowhere.fileno(), 1)
        sys.stdin = nowhere
        import torch

        torch.set_num_threads(1)  # the sizes are tiny
        warm_up(sys.argv[1])
        sys.path.append(os.getcwd())  # helpers beside the notebook
        answer = _in_a_fork if "fork" in sys.argv else _answer
        _say(answers, "", "ready")
        while True:
            try:
                question = pickle.load(questions)
            except EOFError:
                return
            secret, number, *rest = question
            warm_up(number)
            answer(partial(_say, answers, secret), number, *rest)


def warm_up(number: str) -> None:
    """Import now what judging this exercise takes, and every other of its lesson."""
    import transnormer_edu.exercises.judge
    from transnormer_edu.exercises.catalog import find

    with suppress(ValueError, ImportError):  # a number that is not there: the answer will say so
        lesson, _, _ = find(number).number.partition(".")
        if lesson == "8":
            import transnormer_edu.exercises.kernels_08  # noqa: F401 (Triton)
        if lesson == "11":
            import torch._dynamo  # noqa: F401 (a first optimiser imports it: no student's second)


def _in_a_fork(say, number, pickled, seed, seconds) -> None:
    """`_answer` in a copy of this process, which ends with it."""
    answers, secret = say.args
    heard, tell = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(heard)
            os.close(answers.fileno())
            say = partial(_say, os.fdopen(tell, "wb"), secret)
            _limit_processor(math.ceil(COMPUTING) + 1)
            _answer(say, number, pickled, seed, seconds, in_a_fork=True)
        finally:
            os._exit(0)  # nothing of the process that it is a copy of is to be tidied up
    os.close(tell)
    with os.fdopen(heard, "rb") as stream:
        try:
            in_time = bool(select([stream], [], [], seconds)[0])
            late = "stopped", _too_long(seconds)
            said = _true(pickle.load(stream), secret) if in_time else late
        except (EOFError, pickle.UnpicklingError):
            said = None
    os.kill(child, signal.SIGKILL)
    _, how = os.waitpid(child, 0)
    say(said or _why(os.WTERMSIG(how) if os.WIFSIGNALED(how) else 0, number))


def _why(sign: int, number: str) -> tuple[str, str]:
    """What to say of a check that the system has ended."""
    from transnormer_edu.exercises.catalog import find

    if sign == signal.SIGSEGV and find(number).launch:
        return "wrong", "It reads or writes beyond a tensor: is the mask of a tl.load missing?"
    return "stopped", _too_long(COMPUTING) if sign == signal.SIGXCPU else GONE


def _limit_processor(seconds: int = -1) -> None:
    """The system ends this process after so many seconds of computing; -1: it does not.

    Beside `Watch`, which Python does not let look while one long operation runs.
    """
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds if seconds > 0 else most, most))


def _answer(say, number, pickled, seed, seconds, in_a_fork=False) -> None:
    from transnormer_edu.exercises.catalog import find
    from transnormer_edu.exercises.judge import judge
    from transnormer_edu.exercises.kernel import at_the_edge

    faulthandler.dump_traceback_later(ORPHAN_SECONDS, exit=True)
    try:
        exercise = find(number)
    except ValueError as error:
        say(("unknown", str(error)))
    else:
        with Watch(say, lift=_limit_processor if in_a_fork else lambda: None) as watch:
            function = pickle.loads(pickled)
            wrong = _not_written(function, exercise.finished)
            if wrong is None:
                wrong = judge(exercise, function, seed, when_done=watch.stop)
        if wrong is None and exercise.launch and in_a_fork:
            with at_the_edge():
                judge(exercise, function, seed)
        say(("wrong", wrong) if wrong else ("right", exercise.title))
    faulthandler.cancel_dump_traceback_later()


def _not_written(function, finished) -> str | None:
    """What to say of a function that only hands on somebody else's answer."""
    from transnormer_edu.exercises.borrowed import borrowed, peeks

    name = borrowed(function, finished)
    if name:
        return f"It uses {name} of this project, which is the answer: write it yourself."
    name = peeks(function)
    return (
        f"It looks into the check, by {name}: all that it needs are its inputs." if name else None
    )


class Watch:
    """Ends this process, and says so, when it has computed for too long, or done nothing."""

    def __init__(self, say, lift):
        self.say, self.lift, self.done = say, lift, Event()

    def __enter__(self):
        Thread(target=self._look, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.stop()

    def stop(self) -> None:
        self.done.set()
        self.lift()

    def _look(self) -> None:
        began = awake = time.process_time()
        since = time.monotonic()  # when it was last seen to do something
        while not self.done.wait(0.05):
            computed, now = time.process_time(), time.monotonic()
            if computed - awake > 0.02:  # more than looking takes
                awake, since = computed, now
            if computed - began > COMPUTING:
                self._end(_too_long(COMPUTING))
            if now - since > WAITING:
                self._end(f"for {WAITING:.0f} s it did nothing: does it wait for something?")

    def _end(self, why: str) -> None:
        self.say(("stopped", why))
        os._exit(1)


def _true(said, secret: str):
    """What was said with the secret; None for what the function has written there."""
    return said[1] if isinstance(said, tuple) and said[0] == secret else None


def _say(stream, secret, what) -> None:
    pickle.dump((secret, what), stream)
    stream.flush()


if __name__ == "__main__":
    main()
