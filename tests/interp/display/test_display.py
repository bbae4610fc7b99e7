"""What notebooks show: the same numbers as the tables, nothing that a name could inject, and axes for every result."""

import inspect
import itertools
import pydoc
import re
import sys
from dataclasses import replace
from html import unescape
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.text import Text

import interp
from analyses.findings import Findings
from interp import load, parse_heads
from interp.display.result import Result
from interp.model.hooked_transformer import hooked
from interp.patching.path_receivers import parse_receivers
from training.common import progress
from training.common.errors import UserError
from training.evaluation.evaluate import evaluation_prompts

FEW = 32  # prompts


@pytest.fixture(scope="module")
def trained():
    return load("zoo:mixed-0")


@pytest.fixture(scope="module")
def results(trained):
    """One of each kind, on so few prompts that only their looks matter."""
    (head,), each = parse_heads("0.1", 3, 8), parse_heads("each", 3, 8)
    starts, ends = [head], parse_receivers("out,1.mlp", 3, 8)
    few: dict[str, Any] = {"n_prompts": 32, "n_fit": 128}
    found = [
        interp.score(trained, ["linear"], n_prompts=FEW),
        interp.patterns(trained, "0.1,0.2", "linear"),
        interp.ablate(trained, [head], ["linear"], n_controls=3, n_prompts=FEW),
        interp.ablate(trained, each, ["linear"], modes=["mean"], matches=(), n_prompts=FEW),
        interp.cumulative(
            trained, parse_heads("0.1,0.2", 3, 8)[0], ["linear"], modes=["mean"], n_orders=2, n_prompts=FEW
        ),
        interp.pairs(trained, parse_heads("0.1,0.2", 3, 8)[0], ["linear"], modes=["mean"], n_prompts=FEW),
        interp.patch(trained, ["linear"], site="resid_post", n_prompts=FEW),
        interp.path_effects(trained, starts, ends, ["linear"], n_prompts=FEW),
        interp.composition(trained, "0.1", n_rotations=3),
        interp.attribute(trained, ["linear"], methods=["gradient"], n_validate=16, n_prompts=FEW),
        interp.circuits(trained, ["linear"], sizes=[400], method="eap", n_random=2, n_prompts=FEW),
        interp.lens(trained, ["linear"], n_prompts=128),
        interp.probe(trained, "linear", targets="xty", tokens="y", examples=[15], **few),
        interp.decode_heads(trained, ["linear"], **few),
        interp.head_weights(trained, n_rotations=3),
        interp.swap(trained, ["linear"], targets=["xty"], tokens="y", examples=15, n_controls=3, **few),
    ]
    return {type(one).__name__ + ("" if i != 3 else " of each"): one for i, one in enumerate(found)}


KINDS = (
    "HeadScores", "Patterns", "Ablation", "Ablation of each", "CumulativeAblation", "PairAblation", "PatchMap",
    "PathEffects", "Composition", "Attribution", "Circuits", "Lens", "Probes", "HeadDecoding", "HeadWeights",
    "Swaps",
)  # fmt: skip
WITHOUT_CLASS = ("Composition", "HeadWeights")
"""Of the weights alone."""


def test_every_kind_of_result_is_tried(results):
    assert set(results) == set(KINDS)
    elsewhere = ("analyses.", "interp.any_model.", "interp.doctor.")  # tested beside their modules
    assert {type(one) for one in results.values()} == {
        kind for kind in subclasses(Result) if not kind.__module__.startswith(elsewhere)
    }


def subclasses(base):
    return [one for child in base.__subclasses__() for one in [child, *subclasses(child)]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_notebook_shows_what_a_terminal_prints(results, kind, capsys):
    one = results[kind]
    one.show()
    printed, shown = capsys.readouterr().out, text_of(one._repr_html_())
    cells = [cell for table in one.tables() for row in table.rows for cell in row]
    assert cells
    for cell in cells:
        assert cell in shown
    numbers = [cell for cell in cells if re.fullmatch(r"-?\d+\.\d+", cell)]
    assert all(number in printed for number in numbers)
    for sentence in one.sentences():
        assert sentence in shown
    assert one.checkpoint in shown


@pytest.mark.parametrize("kind", KINDS)
def test_a_shell_is_not_flooded(results, kind):
    assert results[kind].checkpoint in repr(results[kind])
    assert len(repr(results[kind])) < 120


def test_results_are_found_in_lists_and_counted(results):
    """`==` of arrays is no truth value, so a result equals itself only; `in`, `remove`, sets and caches work."""
    listed = list(results.values())
    for one in listed:
        assert listed.count(one) == 1
        assert one != replace(one)
    assert len(set(listed)) == len(listed)
    found = Findings("?", [], {}, {"a": pd.DataFrame()})
    assert found in [replace(found), found]


def text_of(html):
    return unescape(re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)))


@pytest.mark.parametrize("kind", KINDS)
def test_every_result_draws_itself_on_a_figure_of_its_own(results, kind):
    before = set(plt.get_fignums())
    axes = results[kind].plot()
    assert axes
    assert all(isinstance(ax, Axes) for ax in axes)
    assert len(set(plt.get_fignums()) - before) == 1
    plt.close(axes[0].figure)


@pytest.mark.sample(4)
@pytest.mark.parametrize("kind", KINDS)
def test_a_figure_names_its_model_and_its_class_and_no_title_is_cut(results, kind):
    axes = results[kind].plot()
    figure = axes[0].figure
    titles = [text for text in figure.findobj(Text) if text.get_text() and isinstance(text.get_text(), str)]
    words = " ".join(text.get_text() for text in titles)
    assert "zoo:mixed-0" in words
    assert ("linear" in words) != (kind in WITHOUT_CLASS)
    figure.canvas.draw()
    whole, title = figure.bbox, next(text for text in titles if text.get_text() == figure.get_suptitle())
    drawn = title.get_window_extent()
    assert whole.x0 <= drawn.x0 <= drawn.x1 <= whole.x1
    assert drawn.y1 <= whole.y1


def test_a_name_with_signs_of_formulae_is_a_title(results):
    """Of matplotlib, `$` begins a formula, which this name is not."""
    axes = replace(results["Ablation"], checkpoint="runs/$a^{$b" * 9).plot()
    axes[0].figure.canvas.draw()
    assert axes[0].figure.get_suptitle().replace("\n", "").startswith("runs/$a^{$b")


def test_a_name_cannot_inject_markup(results):
    hostile = "<img src=x onerror=alert(1)>"
    for one in (replace(results["HeadScores"], checkpoint=hostile), replace(results["Lens"], checkpoint=hostile)):
        assert hostile not in one._repr_html_()
        assert hostile in text_of(one._repr_html_())
    found = Findings(hostile, [hostile], {}, {}, {hostile: pd.DataFrame({hostile: [hostile]})})
    assert hostile not in found._repr_html_()


def test_small_maps_show_the_values(results):
    scores, each = results["HeadScores"], results["Ablation of each"]
    assert f"head 0.1, linear: retrospective score {scores.values['linear'][0, 1]:.3f}" in scores.maps()[0]
    effect = each.table.set_index("heads").loc["0.1", "effect"]
    assert f"head 0.1, linear, mean: effect {effect:.3f}" in each.maps()[0]
    assert results["Ablation"].maps() == []  # one set is no map


def test_plots_of_one_set_and_of_what_is_not_there(results):
    with pytest.raises(UserError, match=r"9\.9.*0\.1"):
        results["Ablation"].plot("9.9")
    with pytest.raises(UserError, match="excitement"):
        results["PatchMap"].plot("excitement")
    with pytest.raises(UserError, match="not been validated"):
        replace(results["Attribution"], validation=pd.DataFrame()).plot_validation()
    with pytest.raises(UserError, match="xty"):
        results["Probes"].plot_without("w")
    with pytest.raises(UserError, match="figure"):
        Findings("?", [], {}, {}).plot()


def test_patterns_are_those_of_transformer_lens(trained, results):
    tokens = evaluation_prompts(trained.config, "linear", n_prompts=1, seed=0).tokens
    _, cache = hooked(trained).run_with_cache(tokens)
    expected = cache["blocks.0.attn.hook_pattern"][0, [1, 2]].numpy()
    np.testing.assert_allclose(results["Patterns"].values, expected, atol=1e-6)


def test_the_mean_pattern_has_the_score(trained):
    several = interp.patterns(trained, "0.1,1.2", "linear", n_prompts=200)  # more than one pass
    scores = interp.score(trained, ["linear"], n_prompts=200, intervals=False).values["linear"]
    np.testing.assert_allclose(several.scores["retrospective"][:2], [scores[0, 1], scores[1, 2]], atol=1e-6)
    np.testing.assert_allclose(several.values.sum(-1), 1, atol=1e-5)


def test_patterns_zoom_to_pairs(results):
    found = results["Patterns"]
    assert [found.tokens[i] for i in range(*found.span("3-4").indices(99))] == ["x3", "y3", "x4", "y4"]
    (ax, _) = found.plot("3-4")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["x3", "y3", "x4", "y4"]
    np.testing.assert_allclose(ax.images[0].get_array().diagonal(), np.diagonal(found.values[0])[6:10])
    plt.close(ax.figure)
    for wrong in ("3-99", "0-1,3-4"):
        with pytest.raises(UserError, match="pairs 0-15"):
            found.span(wrong)


def test_long_prompts_stay_readable(results):
    n = 100
    tokens = tuple(name for i in range(n) for name in (f"x{i}", f"y{i}"))
    values = np.tril(np.full((1, 2 * n, 2 * n), 1 / n))
    long = replace(results["Patterns"], heads=results["Patterns"].heads[:1], tokens=tokens, values=values)
    (ax,) = long.plot()
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert 10 <= len(labels) <= 40
    assert labels[1] in ("x5", "x10")
    ax.figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
    assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(boxes))
    plt.close(ax.figure)


def test_an_mlp_has_no_pattern(trained):
    with pytest.raises(UserError, match="attends to nothing"):
        interp.patterns(trained, "0.mlp", "linear")


@pytest.mark.parametrize("name", interp.__all__)
def test_help_answers(name):
    one = getattr(interp, name)
    text = pydoc.plain(pydoc.render_doc(one))
    assert len(inspect.getdoc(one) or "") > 40
    if callable(one) and not inspect.isclass(one):
        parameters = inspect.signature(one).parameters
        assert all(parameter in text for parameter in parameters)


def test_help_of_the_package_names_what_it_gives():
    text = pydoc.plain(pydoc.render_doc(interp))
    assert all(name in text for name in interp.__all__)


class Shell:
    def has_trait(self, name):
        return name == "kernel"


@pytest.mark.parametrize("widgets", [True, False])
def test_bars_show_in_a_kernel(monkeypatch, widgets, capsys):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=Shell))
    assert progress.in_notebook()
    if not widgets:
        monkeypatch.setattr(progress, "find_spec", lambda _: None)
        assert list(progress.progress_bar(range(2), desc="work")) == [0, 1]
        assert "work" in capsys.readouterr().err
    else:
        monkeypatch.undo()
        from tqdm.notebook import tqdm as widget

        monkeypatch.setattr(progress, "in_notebook", lambda: True)
        assert isinstance(progress.progress_bar(range(2), disable=True), widget)


@pytest.mark.parametrize("asked", ["", "1"])
def test_a_variable_keeps_the_bars_of_a_notebook_away(monkeypatch, asked):
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setenv("TQDM_DISABLE", asked)
    assert progress.progress_bar(range(2)).disable == bool(asked)
    assert progress.progress_bar(range(2), disable=None).disable == bool(asked)
    assert progress.progress_bar(range(2), disable=True).disable


def test_bars_stay_away_where_there_is_no_stderr(monkeypatch):
    """As in pythonw, and in a service that was started with a closed one."""
    monkeypatch.setattr(sys, "stderr", None)
    assert list(progress.progress_bar(range(2), desc="work")) == [0, 1]


def test_bars_stay_away_where_nobody_watches(capsys):
    assert not progress.in_notebook()
    assert list(progress.progress_bar(range(2), desc="work")) == [0, 1]
    assert capsys.readouterr().err == ""
