"""The text that every Python carries: its documentation, and the library's own source.

Nothing is imported to be read: a module's docstrings are found in its source, by parsing it.
"""

import ast
import gc
import sys
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

# Tests are no prose; pydoc_data holds the topics once more; encodings are tables of numbers.
LEFT_OUT = {"test", "tests", "idle_test", "_bundled", "pydoc_data", "encodings"}


def pydoc_topics() -> Iterator[tuple[str, str]]:
    """The language reference behind `help("topics")`."""
    try:
        from pydoc_data.topics import topics
    except ImportError:  # some slim Pythons leave it out; the docstrings alone still do
        return
    for name in sorted(topics):
        yield (f"topic {name}", topics[name])


def standard_library(read: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """Name and `read(source)` of each module of the standard library; none is imported.

    Errors: FileNotFoundError for a Python that carries no .py files.
    """
    for name, path in standard_library_files():
        try:
            text = read(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):  # a few files are wrong on purpose
            continue
        yield (name, text)


def standard_library_files() -> list[tuple[str, Path]]:
    """Name and path of each module of the standard library, in the order of the paths.

    Errors: FileNotFoundError for a Python that carries no .py files.
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    files = [
        path for path in sorted(root.rglob("*.py")) if _is_library_file(path.relative_to(root))
    ]
    if not files:
        raise FileNotFoundError(
            f"The standard library's source was expected as .py files in {root}, and there are "
            f"none (a zipped or slim Python): give a text file of your own instead, --data PATH."
        )
    return [(".".join(path.relative_to(root).with_suffix("").parts), path) for path in files]


def _is_library_file(path: Path) -> bool:
    """Part of the library itself: not a test, a table, or something installed beside it."""
    top = path.parts[0].removesuffix(".py")
    return top in sys.stdlib_module_names and not LEFT_OUT & set(path.parts)


def docstrings(source: str) -> str:
    """All docstrings of a module, in the order in which they stand there."""
    with warnings.catch_warnings(), _no_collection():
        warnings.simplefilter("ignore")  # old escapes in old modules are not our reader's concern
        tree = ast.parse(source)
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        nodes = [node for node in _statements(tree) if isinstance(node, kinds)]
    nodes.sort(key=lambda node: getattr(node, "lineno", 0))
    return "\n\n".join(text for node in nodes if (text := ast.get_docstring(node)))


@contextmanager
def _no_collection() -> Iterator[None]:
    """A tree is many small parts and no garbage: to look for some takes a third of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """This node and all statements within it. No expression holds a docstring: they are skipped."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield from _statements(child)
