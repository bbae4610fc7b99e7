import numpy as np
import pandas as pd
import pytest

from analyses.published import CLASSES, ModelMaps, compare, published_maps, rank_correlations, statistics, study
from training.checkpoint import load


@pytest.fixture(scope="module")
def published():
    return {model.curriculum: model for model in published_maps()}


def test_the_shipped_maps_are_the_papers(published):
    """Heads at 0.4 or more as the paper's own notes list them, and its chance level."""
    counts = {name: [row["n_near_maximum"] for row in statistics(model)] for name, model in published.items()}
    assert counts == {
        "single:linear": [7, 7, 0],
        "single:quadratic": [0, 0, 0],
        "single:cubic": [10, 10, 10],
        "mixed": [7, 7, 7],
        "random": [8, 7, 7],
        "sequential": [9, 9, 9],
    }
    for model in published.values():
        assert model.chance == pytest.approx(0.102, abs=5e-4)
        for values in model.maps.values():
            assert values.shape == (12, 8)
            assert (values.min(), values.max()) >= (0, 0.25)
            assert values.max() <= 0.5
    retrospective = {
        (int(layer) + 1, int(head) + 1) for layer, head in np.argwhere(published["mixed"].maps["cubic"] >= 0.4)
    }
    assert retrospective == {(4, 1), (4, 5), (4, 6), (4, 8), (5, 4), (5, 8), (6, 7)}  # the paper counts from 1


def test_statistics_of_a_known_map():
    values = np.array([[0.5, 0.3], [0.1, 0.0]])
    maps = {"linear": values, "quadratic": values**2, "cubic": -values}
    model = ModelMaps("known", "mixed", 0.1, maps)
    row = statistics(model)[0]
    assert (row["maximum"], row["median"], row["share_above_half"], row["n_near_maximum"]) == (0.5, 0.2, 0.5, 1)
    assert [round(row["spearman"], 6) for row in rank_correlations(model)] == [1, -1, -1]


def test_a_model_agrees_with_itself_and_a_flat_one_does_not(published):
    original = published["mixed"]
    flat = {name: np.full((3, 8), 0.1) + np.arange(24).reshape(3, 8) / 1e3 for name in CLASSES}
    models = [ModelMaps("same", "mixed", original.chance, original.maps), ModelMaps("flat", "mixed", 0.102, flat)]
    table = pd.DataFrame([row for model in (original, *models) for row in statistics(model)])
    likeness = pd.DataFrame([row for model in (original, *models) for row in rank_correlations(model)])
    same, other = (compare(model, table, likeness)[1] for model in models)
    assert "and not on" not in same
    assert "and not on whether any head comes near the maximum." in other


def test_the_study_compares_shipped_models_with_the_published_ones():
    result = study([load("zoo:mixed-0"), load("zoo:cubic-0")], n_prompts=32)
    assert len(result.table) == (6 + 2) * 3
    assert len(result.likeness) == (6 + 2) * 3
    ours = result.table[result.table["model"] == "zoo:mixed-0"]
    assert list(ours["n_near_maximum"]) == [1, 1, 1]
    assert "zoo:mixed-0 (mixed) has 1, 1, 1 heads of 24 at 0.4 or more" in result.sentences[0]
    assert "and not on whether any head comes near the maximum" in result.sentences[3]
