"""An answer that only calls the package's finished function is refused, and no other is."""

import pytest

from transnormer_edu.exercises import Wrong, _workers, check
from transnormer_edu.exercises.borrowed import OPERATORS, borrowed
from transnormer_edu.exercises.catalog import every
from transnormer_edu.exercises.lesson_04 import by_loop

FINISHED = OPERATORS


def in_a_notebook(source: str):
    names = {"__name__": "__main__"}
    exec(source, names)
    return names["f"]


BORROWED = [
    "from transnormer_edu.attention import linear_attention\ndef f(q): return linear_attention(q)",
    "from transnormer_edu.attention import linear_attention as mine\ndef f(q): return mine(q)",
    "from transnormer_edu import attention\ndef f(q): return attention.linear_attention(q)",
    "import transnormer_edu.attention\n"
    "def f(q): return transnormer_edu.attention.linear_attention(q)",
    "def f(q):\n    from transnormer_edu.attention import linear_attention\n"
    "    return linear_attention(q)",
    "def f(q):\n    import transnormer_edu.attention as a\n    return a.linear_attention(q)",
    "from transnormer_edu.attention import linear_attention\n"
    "def helper(q): return linear_attention(q)\ndef f(q): return helper(q)",
    "from transnormer_edu.attention import linear_attention\n"
    "def f(q): return [linear_attention(x) for x in q]",
    "from transnormer_edu.attention import linear_attention\n"
    "def f(q, op=linear_attention): return op(q)",
    "from transnormer_edu.attention import linear_attention\n"
    "def f(q, *, op=linear_attention): return op(q)",
    "from transnormer_edu.attention import linear_attention\n"
    "def make(op):\n    def f(q): return op(q)\n    return f\nf = make(linear_attention)",
    "from transnormer_edu.attention import linear_attention\n"
    "tools = [{'a': (linear_attention,)}]\ndef f(q): return tools[0]['a'][0](q)",
    "from transnormer_edu.attention import linear_attention\n"
    "class Mine:\n    def __call__(self, q): return linear_attention(q)\nf = Mine()",
    "from transnormer_edu.attention import linear_attention\n"
    "class Mine:\n    def f(self, q): return linear_attention(q)\nf = Mine().f",
    "from transnormer_edu.attention import linear_attention\n"
    "class Mine:\n    def f(self, q): return linear_attention(q)\ndef f(q): return Mine().f(q)",
    "import functools\nfrom transnormer_edu.attention import linear_attention\n"
    "def g(q): return linear_attention(q)\n"
    "@functools.wraps(g)\ndef f(*x): return f.__wrapped__(*x)",
    "from transnormer_edu.attention import linear_attention\n"
    "def f(q): return f.op(q)\nf.op = linear_attention",
    "from functools import partial\nfrom transnormer_edu.attention import linear_attention\n"
    "def helper(op, q): return op(q)\nf = partial(helper, linear_attention)",
    "from transnormer_edu.attention import FORMS\ndef f(q): return FORMS['recurrent'](q)",
    "from functools import partial\nfrom transnormer_edu.attention import linear_attention\n"
    "def helper(q, n): return linear_attention(q)\nf = partial(helper, n=3)",
    "from transnormer_edu.attention import linear_attention\nf = linear_attention",
    "from transnormer_edu.exercises.lesson_04 import by_loop\ndef f(q): return by_loop(q)",
    "from transnormer_edu.exercises.catalog import find\ndef f(q): return find('4.4').reference(q)",
    "def f(q):\n    from transnormer_edu.exercises.lesson_04 import by_loop\n    return by_loop(q)",
]

OWN = [
    "def linear_attention(q): return 2 * q\ndef f(q): return linear_attention(q)",
    "from transnormer_edu.decay import decay_mask\ndef f(q): return decay_mask(q)",
    "def linear_attention(q): return 2 * q\n"
    "def f(q):\n    from transnormer_edu.decay import decay_mask\n"
    "    return linear_attention(decay_mask(q))",
    "from transnormer_edu.attention import linear_attention\ndef f(q): return q",
    "import torch\ndef f(q): return torch.exp(q)",
    "import torch\nclass Mine(torch.nn.Module):\n    def forward(self, q): return q\nf = Mine()",
    "from torch import nn, Tensor, einsum\ndef f(q: Tensor, how=einsum): return how('i->', q)",
    "def f(q):\n    linear_attention = q\n    return linear_attention",
    "def f(q): return f(q - 1) if q else q",
]


@pytest.mark.parametrize("source", BORROWED)
def test_borrowed(source):
    assert borrowed(in_a_notebook(source), FINISHED) is not None


@pytest.mark.parametrize("source", OWN)
def test_own(source):
    assert borrowed(in_a_notebook(source), FINISHED) is None


def test_the_check_says_so():
    try:
        said = "It uses linear_attention of this project, which is the answer: write it yourself"
        with pytest.raises(Wrong, match=said):
            check("4.4", in_a_notebook(BORROWED[0]))
        check("4.4", by_loop)
    finally:
        _workers.pop().stop()


def test_what_is_finished_is_there():
    """A function that was renamed would no longer be refused."""
    names = {name for exercise in every() for name in exercise.finished}
    assert names <= {name for module in _modules() for name in vars(module)}


def _modules():
    from importlib import import_module
    from pkgutil import iter_modules

    import transnormer_edu

    leave = ("plots", "exercises", "parallel", "cli", "__main__", "hf", "results", "weights")
    for module in iter_modules(transnormer_edu.__path__):
        if not module.name.startswith(leave):
            yield import_module(f"transnormer_edu.{module.name}")
