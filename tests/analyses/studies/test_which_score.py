"""The study of guides on a planted circuit, its sentences, and the error rate of its comparison of guides."""

from dataclasses import replace
from types import SimpleNamespace

import circuits
import numpy as np
import pandas as pd
import pytest

from analyses.studies.which_score.measures import (
    DIRECT,
    FUNCTION_VECTOR,
    GUIDES,
    ONLY_ATTENDS,
    ONLY_CARRIES,
    REFERENCE,
    arrival_table,
    exclusive_sets,
)
from analyses.studies.which_score.study import study
from analyses.studies.which_score.verdict import arrival_sentences, guide_sentences
from interp.model.heads import Head
from interp.statistics.effects import holm
from interp.statistics.sign_flips import sign_flip_p
from training.common.output import records
from training.common.table_rows import where


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    """Of a copying head 0.1, a decoy 0.3 that attends as it does, and a head 1.2 that carries the function."""
    planted = circuits.planted(tmp_path_factory.mktemp("planted"))
    config = replace(planted.config, data=replace(planted.config.data, classes=("linear",)))
    return study([replace(planted, config=config)], n_prompts=256)


def test_guides_find_what_is_planted(findings):
    heads = findings.files["heads"].set_index("heads")
    assert set(heads.index[heads["effect"] > 0.5]) == {"0.1", "1.2"}
    assert set(heads.index[heads[REFERENCE] > 0.5]) == {"0.1", "0.3"}
    assert set(heads.index[heads[FUNCTION_VECTOR] > 0.5]) == {"1.2"}
    assert heads[DIRECT].abs().max() < 0.02  # a multiplication comes after either head
    found = findings.files["rankings"].set_index("guide")["share_found"]
    assert found["integrated gradient"] == 1
    assert found[REFERENCE] == 0.5
    assert found[FUNCTION_VECTOR] == pytest.approx(0.5, abs=0.06)  # and a share of the draw for the second place
    rows = records(findings.files["guides"])
    assert {row["guide"] for row in rows} <= set(GUIDES)
    assert max(rows, key=lambda row: row["spearman"])["guide"] in ("gradient", "integrated gradient")


def test_removal_excludes_the_other_kind(findings):
    sets = findings.files["sets"].set_index("kind")["heads"]
    assert sets.to_dict() == {ONLY_ATTENDS: "0.1,0.3", ONLY_CARRIES: "1.2"}
    effects = {row["heads"]: row["effect"] for row in records(findings.files["exclusion"])}
    assert effects == {kind: pytest.approx(1, abs=0.05) for kind in (ONLY_ATTENDS, ONLY_CARRIES)}
    text = "\n".join(findings.sentences())
    (name,) = set(findings.files["sets"]["checkpoint"])
    assert f"Removing retrospective heads that are not function-vector heads ({name} 0.1,0.3) costs 1.0" in text
    assert f"Removing function-vector heads that are not retrospective ({name} 1.2) costs 1.0" in text
    assert "One seed allows no comparison of guides." in text


def test_heads_without_a_certain_score_are_no_function_vector_heads():
    attends = np.array([[0.9, 0.1], [0.8, 0.1]])
    carries = np.array([[0.3, 0.4], [0.0, 0.2]])
    guides = {"linear": {REFERENCE: attends, FUNCTION_VECTOR: carries}}
    certain = {"linear": np.array([[0.2, 0.3], [-0.1, 0.1]])}
    assert exclusive_sets(guides, certain, ["linear"]) == {ONLY_ATTENDS: (Head(1, 0),), ONLY_CARRIES: (Head(0, 1),)}
    nowhere = {"linear": np.full((2, 2), -0.1)}
    assert exclusive_sets(guides, nowhere, ["linear"]) == {ONLY_ATTENDS: (Head(0, 0), Head(1, 0))}


def test_equal_guides_are_rarely_told_apart(rng):
    """Twelve guides that are as good as the reference, over eight seeds: one in twenty families at most."""
    wrong = 0
    for _ in range(600):
        shared = rng.normal(size=(8, 1))
        differences = 0.3 * shared + rng.normal(size=(8, 12))
        wrong += min(holm([sign_flip_p(column) for column in differences.T])) <= 0.05
    assert wrong / 600 < 0.07


def test_a_guide_that_is_better_in_every_seed_is_said_to_be():
    rows = [
        {
            "curriculum": "mixed",
            "guide": REFERENCE,
            "spearman": 0.1,
            "difference": 0.0,
            "p_holm": np.nan,
            "share_found": 0.5,
        },
        {
            "curriculum": "mixed",
            "guide": "gradient",
            "spearman": 0.6,
            "difference": 0.5,
            "p_holm": 0.01,
            "share_found": 0.9,
        },
        {
            "curriculum": "mixed",
            "guide": "self",
            "spearman": -0.4,
            "difference": -0.5,
            "p_holm": 0.02,
            "share_found": 0.1,
        },
        {"curriculum": "mixed", "guide": DIRECT, "spearman": 0.3, "difference": 0.2, "p_holm": 0.2, "share_found": 0.4},
    ]
    table = pd.DataFrame([row | {"t_low": 0.0, "t_high": 1.0, "n_seeds": 9, "by_chance": 0.1} for row in rows])
    models = [SimpleNamespace()] * 9
    first, second = guide_sentences(models, table)  # pyright: ignore[reportArgumentType]
    assert first == (
        "Over 9 independent seeds (9 models), the order of heads by gradient agrees best with their exact effects: "
        "rank correlation 0.60 [0.00, 1.00]; it ranks 90% of the heads that cost more than 0.1 alone among as "
        "many of its highest (a random order 10%). The retrospective score has 0.10 [0.00, 1.00] and 50%."
    )
    assert second == (
        "Better than the retrospective score: gradient. Worse: the score self (paired over seeds, p <= 0.05 after Holm "
        "over guides)."
    )
    (nothing,) = guide_sentences(models, table.iloc[:0])  # pyright: ignore[reportArgumentType]
    assert nothing.startswith("No model has a head whose removal alone changes the error")


def test_arrivals_are_counted_and_ordered():
    steps = [0, 10, 20, 40]
    values = {
        ("a", REFERENCE): [0.1, 0.6, 0.9, 0.9],
        ("a", FUNCTION_VECTOR): [0.0, 0.0, 0.1, 0.8],
        ("b", REFERENCE): [0.1, 0.1, 0.6, 0.9],
        ("b", FUNCTION_VECTOR): [0.0, 0.0, 0.0, 0.05],
    }
    course = pd.DataFrame(
        [
            {"checkpoint": name, "guide": guide, "step": step, "highest": value}
            for (name, guide), course in values.items()
            for step, value in zip(steps, course, strict=True)
        ]
    )
    arrivals = arrival_table(course)
    assert where(arrivals, checkpoint="a")[["after", "by"]].to_numpy().tolist() == [[0, 10], [20, 40]]
    (text,) = arrival_sentences(arrivals)
    assert text == (
        "In runs with snapshots the highest retrospective score comes to stay above half of its final value in 2 of 2 "
        "(final value at least 0.5), the highest function-vector score in 1 of 2 (at least 0.1); where both do, the "
        "retrospective score comes first in 1 of 1."
    )
    assert arrival_sentences(arrivals.iloc[:0]) == []
