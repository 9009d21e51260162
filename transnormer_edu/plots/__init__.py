"""Figures of the lessons: one file per subject.

A plot function takes numbers or tensors and returns `(figure, sentence)`: the picture, and what it
shows in words. `show` puts both on the page, the sentence below the figure and as its alternative
text; `slider` moves a figure by hand.
"""

from transnormer_edu.plots.moving import slider
from transnormer_edu.plots.page import show

__all__ = ["show", "slider"]
