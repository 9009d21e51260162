"""The package's shape annotations are executed in every test: a wrong shape is a failed test."""

import jaxtyping
import pytest

from tests import typechecker

# Before anything imports the package: the hook rewrites modules while they are imported.
jaxtyping.install_import_hook("transnormer_edu", f"{typechecker.__name__}.check")


@pytest.fixture(autouse=True)
def _only_own_messages(request):
    """`@pytest.mark.bad_input`: users do not run the shape checks, so the test shall not either.

    What refuses the input is then the function itself, with its own sentence.
    """
    if request.node.get_closest_marker("bad_input") is None:
        yield
        return
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
