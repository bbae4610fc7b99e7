"""The study of consistency: planted orders of heads, untrained twins, shared streams, snapshots, refusals."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from analyses.studies.consistency.measures.attention import comparable, initial_model, read_attention
from analyses.studies.consistency.measures.between import (
    contrast_pairs,
    count_coincidences,
    excess_rows,
    group_pairs,
    pairs_table,
)
from analyses.studies.consistency.measures.matching import WITHIN, blocks, match_heads, similarity
from analyses.studies.consistency.measures.snapshots import earlier_steps, last_of_runs, snapshots_table
from analyses.studies.consistency.measures.within import contrasts_table, curricula_table, within_table
from analyses.studies.consistency.study import common_classes, open_models, shorten_name, study
from analyses.studies.consistency.verdict import initial_sentences, snapshot_sentences
from interp.model.heads import Head
from interp.scores.score import score
from training.checkpoints.checkpoint import Checkpoint, load
from training.common.errors import UserError
from training.config.config import Seeds
from training.config.parse import from_preset
from training.loop.trainer import train
from training.model.transformer import Transformer

CLASSES = ["linear", "quadratic", "cubic"]


@pytest.fixture(scope="module")
def mixed() -> Checkpoint:
    return load("zoo:mixed-0")


def with_heads_moved(checkpoint: Checkpoint, orders: list[list[int]]) -> Checkpoint:
    """The same function with its heads numbered anew, under seeds of its own."""
    model = Transformer(checkpoint.config.model, layout=checkpoint.config.layout)
    model.load_state_dict(checkpoint.model.state_dict())
    for block, order in zip(model.layers, orders, strict=True):
        for name, parameter in block.attn.named_parameters():
            if name != "b_O":
                parameter.data = parameter.data[order]
    config = replace(checkpoint.config, seeds=Seeds(1, 2, 3))
    return replace(checkpoint, name="moved", config=config, model=model.requires_grad_(False).eval())


def random_models(checkpoint: Checkpoint, n: int) -> list[Checkpoint]:
    """Initialisations that have nothing in common."""
    return [
        replace(
            checkpoint,
            name=f"random-{seed}",
            config=replace(checkpoint.config, seeds=Seeds(100 + seed, 200 + seed, 300 + seed)),
            model=Transformer(checkpoint.config.model, torch.Generator().manual_seed(seed)).requires_grad_(False),
        )
        for seed in range(n)
    ]


def test_a_look_is_the_retrospective_score_and_a_mean_pattern(mixed):
    seen = read_attention(mixed.model, mixed.config, CLASSES, n_prompts=40, n_choosing=24, seed=0)
    expected = score(mixed, CLASSES, n_prompts=40, intervals=False)
    np.testing.assert_allclose(seen.scores.mean(0), [expected.values[name] for name in CLASSES], rtol=1e-5)
    again = score(mixed, CLASSES, n_prompts=24, stream="selection", intervals=False)
    np.testing.assert_allclose(seen.selection_scores, [again.values[name] for name in CLASSES], rtol=1e-5)
    own_x = seen.test_pattern.attention[0, 1, 1::2, ::2].diagonal().mean()
    assert own_x == pytest.approx(np.mean([expected.values[name][0, 1] for name in CLASSES]), rel=1e-5)
    np.testing.assert_allclose(seen.test_pattern.attention.sum(-1), 1, rtol=1e-5)


def test_moved_heads_are_matched_by_function_and_not_by_number(mixed, rng):
    orders = [list(rng.permutation(8)) for _ in range(3)]
    moved = with_heads_moved(mixed, orders)
    one, other = (
        read_attention(c.model, c.config, CLASSES, n_prompts=32, n_choosing=32, seed=0) for c in (mixed, moved)
    )
    for within in WITHIN:
        chosen, judged = (
            similarity(one.selection_descriptions, other.selection_descriptions),
            similarity(one.test_descriptions, other.test_descriptions),
        )
        found = match_heads(chosen, judged, blocks(3, 8, within), rng)
        assert found.matched == pytest.approx(1, abs=1e-5)
        assert found.by_index < 0.6
        expected = np.concatenate([np.argsort(order) + 8 * layer for layer, order in enumerate(orders)])
        np.testing.assert_array_equal(found.match, expected)


def test_random_models_are_hardly_alike_once_the_matching_is_judged_elsewhere(mixed, rng):
    """Judged where it was chosen it looks like correspondence; elsewhere the rest is what the study subtracts."""
    seen = [
        read_attention(one.model, one.config, ["linear"], n_prompts=32, n_choosing=32, seed=0)
        for one in random_models(mixed, 8)
    ]
    among = blocks(3, 8, "layer")
    held_out, circular = [], []
    for place, one in enumerate(seen):
        for other in seen[:place]:
            chosen, judged = (
                similarity(one.selection_descriptions, other.selection_descriptions),
                similarity(one.test_descriptions, other.test_descriptions),
            )
            for excess, choice in ((held_out, chosen), (circular, judged)):
                found = match_heads(choice, judged, among, rng)
                excess.append(found.matched - found.chance)
    assert np.mean(held_out) < 0.04
    assert np.mean(circular) > 2 * np.mean(held_out)


@pytest.mark.slow
def test_the_study_finds_nothing_learned_in_random_models(mixed):
    """Trained and untrained are draws of the same kind: the jackknife interval of their difference holds 0."""
    found = study(random_models(mixed, 5), n_prompts=16)
    between = found.files["between"].set_index(["curricula", "within", "measure"])
    low, high = between.loc[("all", "layer", "learned"), ["ci_low", "ci_high"]]
    assert low < 0 < high
    assert any("The interval includes 0" in sentence for sentence in found.sentences())
    assert any("No model has a head above 0.5" in sentence for sentence in found.sentences())


@pytest.mark.slow
def test_the_initial_model_is_snapshot_0(quick_config, tmp_path):
    train(quick_config, tmp_path, progress=False)
    twin = initial_model(load(tmp_path)).state_dict()
    start = load(f"{tmp_path}@0").model.state_dict()
    assert twin.keys() == start.keys()
    assert all(torch.equal(twin[name], start[name]) for name in twin)


@pytest.fixture(scope="module")
def six() -> list[Checkpoint]:
    return [load(f"zoo:{name}-0") for name in ("mixed", "random", "sequential", "linear", "quadratic", "cubic")]


@pytest.mark.slow
def test_the_study_says_what_follows_and_what_does_not(six, tmp_path):
    found = study(six, n_prompts=64)
    text = "\n".join(found.sentences())
    for part in (
        "there are not two independent seeds on both sides",
        "untrained models reach",
        "specific to mixed. The lowest value here of 4 models",
        "this agrees; 2 models without such a head",
        "4 of 6 models have a head above 0.5 on some class (0 of their untrained twins); it is the same set on every "
        "class in mixed 1 of 1, random 1 of 1, sequential 1 of 1, single:linear 1 of 1 of these.",
        "No two of these models share a seed",
        "the heads above 0.5 are the highest ones permanently from step",
    ):
        assert part in text
    found.write(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        *(f"{name}.csv" for name in ("within", "curricula", "contrasts", "found", "pairs", "between", "steps")),
        *(f"{name}.png" for name in ("within", "between", "steps")),
        "summary.md",
    }
    assert len(found.files["pairs"]) == 15 * 2 * 2
    json.dumps(found.document(), default=str)


@pytest.mark.slow
def test_one_model_is_enough_for_what_one_model_shows(mixed):
    found = study([mixed], n_prompts=32)
    assert "pairs" not in found.files
    assert "between" not in found.figures
    assert "One model: nothing follows about others, nor about its curriculum." in found.sentences()
    assert "All models are of one curriculum: nothing follows about others." in found.sentences()
    rows = found.files["curricula"].set_index(["state", "statistic"])
    assert rows.loc[("trained", "spearman"), "over"] == "prompts"
    assert rows.loc[("trained", "top_found"), "value"] == 1  # 0.1 on every class


@pytest.mark.slow
def test_models_that_share_a_stream_are_said_to_and_are_no_evidence(mixed, six):
    twin = replace(mixed, name="twin")
    found = study([mixed, twin, six[1], six[3]], n_prompts=32)
    (warning,) = (sentence for sentence in found.sentences() if sentence.startswith("WARNING"))
    assert "1 pair of models share a stream of random numbers (zoo:mixed-0 & twin)" in warning
    assert "1 of 1 heads above 0.5 have the same number" in warning
    pairs = found.files["pairs"]
    same = pairs[pairs["same_stream"] & (pairs["state"] == "trained")]
    np.testing.assert_allclose(same["by_index"], 1)
    assert max(same["p_index"]) < 0.01
    overall = found.files["between"].query("curricula == 'all'")
    assert set(overall["n_pairs"]) == {5}
    assert set(overall["n_seeds"]) == {3}


def test_seeds_are_counted_and_not_models(mixed):
    """Two models of one stream and another one are two seeds; the two count as one by their mean."""
    other = random_models(mixed, 1)[0]
    models = open_models([mixed, replace(mixed, name="twin"), other], CLASSES, 16, 0)
    within = within_table(models, CLASSES, 0)
    row = curricula_table(within).set_index(["state", "statistic"]).loc[("trained", "pearson")]
    values = within.query("state == 'trained' and statistic == 'pearson' and classes == 'all'")["value"].to_numpy()
    assert row["n_seeds"] == 2
    assert row["n_models"] == 3
    assert row["value"] == pytest.approx((values[0] + values[2]) / 2)


@pytest.mark.slow
def test_curricula_that_share_a_seed_are_not_tested_against_each_other(six):
    models = open_models(six[:2], CLASSES, 16, 0)
    shared = [*models, *(replace(model, seed=9 + place) for place, model in enumerate(models))]
    tested = contrasts_table(within_table(shared, CLASSES, 0))
    assert set(tested["n_seeds"]) == {2}
    related = [replace(model, seed=0) if place < 2 else model for place, model in enumerate(shared)]
    assert np.isnan(contrasts_table(within_table(related, CLASSES, 0))["ci_low"].to_numpy(dtype=float)).all()


def test_independent_heads_coincide_by_chance_alone(six):
    models = open_models(six[:4], CLASSES, 16, 0)
    counts = count_coincidences(models, 0)
    heads = [model.retrospective_heads for model in models]
    assert heads == [(Head(0, 1),), (Head(0, 1),), (Head(0, 0),), (Head(0, 1),)]
    assert (counts.n_heads, counts.expected, counts.n_pairs, counts.n_sharing) == (3, 6 / 8, 6, 3)


def test_pairs_of_one_curriculum_are_set_against_pairs_across(six):
    models = open_models(six[:4], CLASSES, 16, 0)
    rows = excess_rows(pairs_table(models, 0).query("within == 'layer'"))
    names = ["mixed", "mixed", "mixed", "random"]
    renamed = {model.checkpoint.name: name for model, name in zip(models, names, strict=True)}
    rows = [row | {"curriculum": renamed[row["checkpoint"]], "other_curriculum": renamed[row["other"]]} for row in rows]
    assert {name: len(members) for name, members in group_pairs(rows).items()} == {
        "all": 6,
        "above one half": 6,
        "mixed & mixed": 3,
        "mixed & random": 3,
    }
    inside, across = (
        np.array([float(row["matched_excess"]) for row in rows if row["other_curriculum"] == name])
        for name in ("mixed", "random")
    )
    found = contrast_pairs(rows, "mixed", "matched_excess")
    assert found.value == pytest.approx(inside.mean() - across.mean())
    assert np.isnan(found.low)  # one random model


@pytest.mark.slow
def test_models_of_other_sizes_are_compared_within_themselves_only(mixed):
    config = from_preset("tiny", "mixed", 7, ["model.n_heads=4"])
    model = Transformer(config.model, torch.Generator().manual_seed(7)).requires_grad_(False)
    other = Checkpoint("four heads", Path("nowhere"), config, 0, model)
    assert not comparable(mixed.config, config)
    found = study([mixed, other], n_prompts=16)
    assert "1 pair of models differ in size or prompts and are not compared." in found.sentences()
    assert set(found.files["within"]["checkpoint"]) == {"zoo:mixed-0", "four heads"}


@pytest.mark.slow
def test_snapshots_lead_up_to_the_last_map(quick_config, tmp_path):
    train(quick_config, tmp_path, progress=False)
    last, middle = load(tmp_path), load(f"{tmp_path}@{sorted_steps(tmp_path)[-2]}")
    models = open_models([last, middle], CLASSES, 16, 0)
    assert [model.checkpoint.name for model in last_of_runs(models)] == [str(tmp_path)]
    steps = snapshots_table(models, CLASSES, n_prompts=16, seed=0)
    assert list(steps["step"]) == earlier_steps(models[0].checkpoint) == [s for s in sorted_steps(tmp_path) if s < 60]
    assert steps["spearman"].iloc[-1] > steps["spearman"].iloc[0] - 1e-9
    assert np.isnan(steps["others"].to_numpy(dtype=float)).all()  # the only other model is of the same run
    found = study([last, middle], n_prompts=16)
    assert "mixed (1 run with snapshots): the first map has Spearman" in found.sentences()[-1]
    assert found.figures["steps"]()


def test_without_snapshots_nothing_is_said_about_training():
    last = open_models([load("zoo:mixed-1")], ["linear"], 16, 0)
    steps = snapshots_table(last, ["linear"], n_prompts=16, seed=0)
    assert snapshot_sentences(steps) == ["No checkpoint has earlier snapshots: nothing is said about training."]


def test_initialisations_foretell_only_what_they_are_told(rng):
    """Correlations with the own last map 0.3 above those with independent ones, and heads that are there by chance."""
    rows = [
        {"step": 0, "seed_group": seed, "spearman": 0.3 + noise, "others": noise, "top_found": top, "top_others": 0.1}
        for seed, (noise, top) in enumerate(zip(rng.normal(0, 0.1, 6), (0, 0, 1, 0, 0, 0), strict=True))
    ]
    (text,) = initial_sentences(rows)
    assert "(difference 0.30 [0.30, 0.30], t-interval over seeds: MORE than chance)" in text
    assert text.endswith("t-interval over seeds).")
    assert initial_sentences([row | {"others": np.nan} for row in rows]) == []


def sorted_steps(directory: Path) -> list[int]:
    return sorted(int(path.stem[5:]) for path in (directory / "snapshots").iterdir())


def test_short_names_are_used_where_they_tell_models_apart(mixed):
    runs = [replace(mixed, name=name) for name in ("a/mixed-0", "b/mixed-0", "b/mixed-1")]
    assert [shorten_name(run.name, [other.name for other in runs]) for run in runs] == [
        "a/mixed-0",
        "b/mixed-0",
        "mixed-1",
    ]


def test_nonsense_is_refused_in_one_line(mixed):
    lonely = replace(mixed, config=replace(mixed.config, data=replace(mixed.config.data, classes=("linear",)),
                                           curriculum="single:linear"))  # fmt: skip
    with pytest.raises(UserError, match=r"at least two function classes.*zoo:mixed-0: linear"):
        common_classes([lonely])
    few = replace(mixed, config=replace(mixed.config, model=replace(mixed.config.model, n_layers=1, n_heads=2)))
    with pytest.raises(UserError, match="it has 2 heads; consistency needs more than 3"):
        study([few])
    short = replace(mixed, config=replace(mixed.config, data=replace(mixed.config.data, n_points=1)))
    with pytest.raises(UserError, match="its prompts have 1 pair"):
        study([short])


@pytest.mark.slow
def test_the_command_prints_one_document(interp, tmp_path):
    arguments = ("--ckpt", "zoo:mixed-0", "--ckpt", "zoo:linear-0", "--prompts", "16", "--json", "--out", tmp_path)
    run = interp("study", "consistency", *arguments, stdout=-1)
    printed, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    given = json.loads(printed)
    assert given["classes"] == CLASSES
    assert given["question"].startswith("Are the same heads")
    assert (tmp_path / "summary.md").exists()
