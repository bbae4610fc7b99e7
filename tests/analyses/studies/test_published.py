import numpy as np
import pytest

from analyses.studies.published import (
    CLASSES,
    ModelMaps,
    compare_with_published,
    map_similarities,
    map_statistics,
    plot_maps,
    published_maps,
    study,
)
from training.checkpoints.checkpoint import load


@pytest.fixture(scope="module")
def published():
    return {model.curriculum: model for model in published_maps()}


def test_the_shipped_maps_are_the_papers(published):
    """Heads at 0.4 or more as the paper's own notes list them, and its chance level."""
    counts = {name: [row["n_near_maximum"] for row in map_statistics(model)] for name, model in published.items()}
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
    row = map_statistics(model)[0]
    assert (row["maximum"], row["median"], row["share_above_half"], row["n_near_maximum"]) == (0.5, 0.2, 0.5, 1)
    assert row["share_near_maximum"] == 0.25
    assert [round(row["spearman"], 6) for row in map_similarities(model)] == [1, -1, -1]


def test_overlap_is_of_the_heads_near_the_maximum():
    maps = {
        "linear": np.array([[0.5, 0.45, 0.1]]),
        "quadratic": np.array([[0.5, 0.1, 0.45]]),
        "cubic": np.zeros((1, 3)),
    }
    rows = {row["classes"]: row["overlap"] for row in map_similarities(ModelMaps("known", "mixed", 0.1, maps))}
    assert rows == {"linear-quadratic": 1 / 3, "linear-cubic": 0, "quadratic-cubic": 0}
    flat = {str(name): np.full((1, 3), 0.1) for name in CLASSES}
    assert all(np.isnan(row["overlap"]) for row in map_similarities(ModelMaps("flat", "mixed", 0.1, flat)))


def test_no_published_maximum_is_near_the_threshold(published):
    """So that it does not matter where between them the threshold lies."""
    maxima = [values.max() for model in published.values() for values in model.maps.values()]
    assert not any(0.36 < maximum < 0.49 for maximum in maxima)


def test_a_model_agrees_with_itself_and_a_flat_one_does_not(published):
    original = published["mixed"]
    flat = {name: np.full((3, 8), 0.1) + np.arange(24).reshape(3, 8) / 1e3 for name in CLASSES}
    same = ModelMaps("same", "mixed", original.chance, original.maps)
    other = ModelMaps("flat", "mixed", 0.102, flat)
    models = (*published.values(), same, other)
    assert compare_with_published(same, models)[1].endswith(
        "the published model on linear, quadratic, cubic: they agree."
    )
    assert "flat has such a head on no class (maxima 0.12, 0.12, 0.12)" in compare_with_published(other, models)[1]
    assert compare_with_published(other, models)[1].endswith("they DISAGREE.")


def test_agreement_is_set_against_the_other_curricula(published):
    """Heads on all three classes: mixed, random, sequential and single:cubic; on none: single:quadratic alone."""
    models = tuple(published.values())
    common = compare_with_published(ModelMaps("mine", "mixed", 0.102, published["mixed"].maps), models)[2]
    assert (
        "Of the 5 published models of other curricula 3 agree with mine on this, so it does not distinguish curricula"
        in common
    )
    rare = compare_with_published(
        ModelMaps("mine", "single:quadratic", 0.102, published["single:quadratic"].maps), models
    )[2]
    assert "0 agree with mine on this; one model against one is no evidence" in rare
    (unknown,) = compare_with_published(ModelMaps("mine", "spiral", 0.102, published["mixed"].maps), models)
    assert "no model of this curriculum" in unknown


def test_the_study_compares_shipped_models_with_the_published_ones():
    result = study([load("zoo:mixed-0"), load("zoo:cubic-0")], n_prompts=32)
    assert len(result.data["results"]) == (6 + 2) * 3
    assert len(result.data["likeness"]) == (6 + 2) * 3
    ours = result.data["results"][result.data["results"]["model"] == "zoo:mixed-0"]
    assert list(ours["n_near_maximum"]) == [1, 1, 1]
    assert "zoo:mixed-0 (mixed) has 1, 1, 1 heads of 24 (4%, 4%, 4%) at 0.4 or more" in result.sentences()[0]
    assert result.sentences()[1].endswith("they agree.")
    assert "zoo:cubic-0 has such a head on no class" in result.sentences()[4]
    assert result.sentences()[4].endswith("they DISAGREE.")


def test_maps_are_drawn_as_they_are(published):
    models = [*published.values()][:2]
    axes = plot_maps(models)
    drawn = [np.asarray(ax.images[0].get_array()) for ax in axes]
    given = [model.maps[name] for model in models for name in CLASSES]
    assert all(np.array_equal(image, values) for image, values in zip(drawn, given, strict=True))
    assert {ax.images[0].norm.vmax for ax in axes} == {0.5}
