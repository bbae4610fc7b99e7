"""No title of an ablation's figure is cut, whatever the number of classes."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.figure import Figure

from interp.ablation.ablate import Ablation
from interp.ablation.figures import plot_ablation, plot_effects, plot_pairs
from interp.ablation.pairs import PairAblation
from interp.ablation.runner import AblationProtocol
from interp.display.axes import figure_of

CLASSES = ["linear", "quadratic", "cubic", "relu_network", "decision_tree", "sparse_linear"]
SETS = ["0.1,0.2", "0.1,1.1", "0.2,1.1"]


def table_of(classes: list[str], modes: list[str]) -> pd.DataFrame:
    numbers = {"effect": 0.5, "ci_low": 0.4, "ci_high": 0.6, "direct_effect": 0.1, "interaction": 0.2}
    labels = [
        {"heads": heads, "function_class": name, "mode": mode, "points": "12-15"}
        for heads in SETS
        for name in classes
        for mode in modes
    ]
    return pd.DataFrame([label | numbers for label in labels])


def cut_titles(figure: Figure) -> list[str]:
    """The titles that are not within the figure."""
    figure.canvas.draw()
    titles = [ax.title for ax in figure.axes] + [title for title in [figure._suptitle] if title]  # type: ignore[attr-defined]
    width, height = figure.bbox.width, figure.bbox.height
    boxes = {title.get_text(): title.get_window_extent() for title in titles if title.get_text()}
    return [text for text, box in boxes.items() if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height]


@pytest.mark.sample(2)
@pytest.mark.parametrize("n_classes", [1, 2, 3, 6])
def test_no_title_is_cut(n_classes):
    classes = CLASSES[:n_classes]
    table = table_of(classes, ["zero", "mean"])
    kinds = [{"match": match, "control": "1.2,1.3"} for match in ("layer", "size")]
    null = pd.concat([table.assign(**kind) for kind in kinds])
    protocol = AblationProtocol(64, 0, (slice(0, 1),))
    result = Ablation("model", 1, table, null, pd.DataFrame(), protocol, "remove", {})
    pairs = PairAblation("model", 1, table, protocol)
    try:
        for axes in (plot_ablation(result, SETS[0]), plot_effects(result), plot_pairs(pairs)):
            assert not cut_titles(figure_of(axes))
    finally:
        plt.close("all")
