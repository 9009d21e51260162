"""Whether an answer calls the package's own finished one: then nothing was written.

    borrowed(function, {"linear_attention"})  ->  "linear_attention", or None

    peeks(function)  ->  "f_locals", or None: the check itself holds the answer

Looks at the function and at what it uses of the notebook, by name. It is a reminder and no lock.
"""

from collections.abc import Callable, Iterator, Set
from functools import partial
from types import CellType, CodeType, FunctionType, ModuleType

HERE = "__main__"  # where the things of a notebook are
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
        names, around = set(_names(used.__code__)), list(_around(used))
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
    if isinstance(function, partial):
        for part in (function.func, *function.args, *function.keywords.values()):
            yield from _functions(part, seen)
    function = getattr(function, "fn", getattr(function, "__func__", function))  # kernel; method
    if getattr(type(function), "__module__", "") == HERE:
        function = type(function)  # an object that can be called
    if isinstance(function, type) and function.__module__ == HERE and function not in seen:
        seen.append(function)
        for part in vars(function).values():
            yield from _functions(part, seen)
    if not isinstance(function, FunctionType) or function in seen:
        return
    seen.append(function)
    yield function
    for thing in _around(function):
        if not _is_ours(thing):
            yield from _functions(thing, seen)


def _around(function: FunctionType) -> Iterator:
    """What a function can reach: what it names, its defaults, what it closes over or bears."""
    code, outside = function.__code__, function.__globals__
    cells = (cell.cell_contents for cell in function.__closure__ or () if cell != CellType())
    yield from _parts(
        [
            *(outside[name] for name in _names(code) if name in outside),
            *(function.__defaults__ or ()),
            *(function.__kwdefaults__ or {}).values(),
            *vars(function).values(),
            *cells,
        ]
    )


def _parts(things, depth: int = 3) -> Iterator:
    """The things, and what is in them where they are lists, tuples, sets or tables."""
    for thing in things:
        yield thing
        inside = thing.values() if isinstance(thing, dict) else thing
        if isinstance(thing, dict | list | tuple | set | frozenset) and depth:
            yield from _parts(inside, depth - 1)


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
