"""Put a figure on the page, its sentence below it and, for those who cannot see it, as alt text."""

import base64
import io
import re

from IPython.display import display
from matplotlib.figure import Figure

from transnormer_edu.plots.style import drawing


@drawing
def png_of(figure: Figure) -> bytes:
    """The figure as PNG: the same figure, the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def show(figure: Figure, sentence: str) -> None:
    """Display what a plot function returned: `show(*learning_curve(...))`.

    The sentence becomes the picture's alternative text (exported pages keep it) and the line below
    it, which is what the notebook tests compare: PNG bytes they do not.
    Errors: ValueError for an empty sentence.
    """
    if not sentence.strip():
        raise ValueError("the figure came without a sentence; say in words what it shows")
    picture = base64.b64encode(png_of(figure)).decode()
    alt = {"image/png": {"alt": sentence}}
    display({"image/png": picture, "text/plain": "<figure>"}, metadata=alt, raw=True)
    in_markdown = re.sub(r"<(?=[a-z/!?])", "&lt;", sentence, flags=re.IGNORECASE)  # <s> is a token
    display({"text/markdown": f"*Figure.* {in_markdown}", "text/plain": sentence}, raw=True)
