import numpy as np
import torch

from transnormer_edu.plots.future import causal_image, without_future
from transnormer_edu.plots.style import new_figure


def test_the_future_is_no_weight_and_a_weight_of_0_is_one():
    weights = torch.tensor([[1.0, 5, 6], [0, 2, 7], [3, 0, 4]], requires_grad=True)
    nan = np.nan
    np.testing.assert_array_equal(without_future(weights), [[1, nan, nan], [0, 2, nan], [3, 0, 4]])


def test_shades_lie_over_a_hatched_ground():
    axes = new_figure().subplots()
    image = causal_image(axes, torch.ones(3, 3), vmin=0, vmax=2)
    assert axes.patch.get_hatch() == "///"
    assert image.get_extent() == [0.5, 3.5, 3.5, 0.5]  # row 1 is above row 3
    assert np.isnan(image.get_array()[0, 1:].filled(np.nan)).all()
    assert (image.norm.vmin, image.norm.vmax) == (0, 2)
