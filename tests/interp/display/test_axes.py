"""Files of figures do not depend on the user's settings of matplotlib."""

import matplotlib.pyplot as plt
import pytest

from interp.display.axes import file_content, panels

SETTINGS = [{"savefig.dpi": 100_000}, {"savefig.bbox": "tight"}, {"svg.fonttype": "path"}]


def draw() -> bytes:
    axes = panels(2, 2, width=3.0, height=2.0)
    axes[0].set(title="score", xlabel="head", ylabel="50 % of $x_i$")
    return file_content(axes)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: next(iter(settings)))
def test_settings_of_the_user_change_no_figure(settings):
    expected = draw()
    with plt.rc_context(settings):
        assert draw() == expected


def test_a_figure_needs_no_latex():
    with plt.rc_context({"text.usetex": True}):
        assert draw().startswith(b"\x89PNG")
