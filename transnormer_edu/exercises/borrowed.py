"""Whether an answer calls the package's own finished one: then nothing was written.

    borrowed(function, {"linear_attention"})  ->  "linear_attention", or None

    peeks(function)  ->  "f_locals", or None: the check itself holds the answer

Looks at the function and at what it uses of the notebook, by name. It is a reminder and no lock.
"""

from collections.abc import Callable, Iterator, Set
from types import CodeType, FunctionType, ModuleType

OURS = ("transnormer_edu", "transnormer_kernels")
ANSWERS = ("transnormer_edu.exercises.lesson_", "transnormer_edu.exercises.catalog")
# Linear attention, by any name that it has in the package.
OPERATORS = {
    "linear_attention", "lightning_attention", "decode_step", "_parallel", "_recurrent", "_chunked",
}  # fmt: skip
PEEKING = {
    "_getframe", "_current_frames", "currentframe", "f_back", "f_locals", "tb_frame", "inspect",
    "getargvalues", "walk_stack", "walk_tb", "get_objects", "get_referrers",
}  # fmt: skip


def peeks(function: Callable) -> str | None:
    """The name by which a function looks at what called it, or None."""
    names = {name for used in _functions(function, []) for name in _names(used.__code__)}
    return min(names & PEEKING, default=None)


def borrowed(function: Callable, finished: Set[str]) -> str | None:
    """The name of what is used and should not be, or None."""
    if _is_ours(function) and function.__name__ in finished:
        return function.__name__
    for used in _functions(function, []):
        if _module(used).startswith(ANSWERS):
            continue  # a lesson's own answers, in its tests
        names = set(_names(used.__code__))
        around = [used.__globals__[name] for name in names & used.__globals__.keys()]
        around += [x for table in around if isinstance(table, dict) for x in table.values()]
        for thing in filter(_is_ours, around):
            if thing.__name__ in finished or _module(thing).startswith(ANSWERS):
                return thing.__name__
        whole = any(isinstance(thing, ModuleType) and _is_ours(thing) for thing in around)
        imported = [name for name in names if name.startswith(OURS)]
        if any(name.startswith(ANSWERS) for name in imported):
            return "the answers"
        own = {name for name in names & finished if name in used.__globals__}
        own = {name for name in own if not _is_ours(used.__globals__[name])}
        if (whole or imported) and names & finished - own:
            return min(names & finished - own)
    return None


def _functions(function, seen: list) -> Iterator[FunctionType]:
    """The function, and those of the notebook that it uses, each once."""
    function = getattr(function, "func", getattr(function, "fn", function))  # partial; a kernel
    if not isinstance(function, FunctionType) or function in seen:
        return
    seen.append(function)
    yield function
    for name in _names(function.__code__):
        if name in function.__globals__ and not _is_ours(function.__globals__[name]):
            yield from _functions(function.__globals__[name], seen)


def _names(code: CodeType) -> Iterator[str]:
    """Names, and words in quotes: getattr and sys.modules go by those."""
    yield from code.co_names
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _names(inner)
        elif isinstance(inner, str):
            yield inner


def _module(thing) -> str:
    name = thing.__name__ if isinstance(thing, ModuleType) else getattr(thing, "__module__", "")
    return name or ""


def _is_ours(thing) -> bool:
    return _module(thing).startswith(OURS) and hasattr(thing, "__name__")
