"""The study of clamping against runs that are known to leave or to stay, and heads that are known."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from analyses.studies.clamping import measures
from analyses.studies.clamping import study as clamping
from analyses.studies.clamping.measures import measure_heads, paired
from analyses.studies.clamping.study import study
from training.checkpoints.checkpoint import Checkpoint, load
from training.checkpoints.history import append_rows
from training.common.errors import UserError
from training.config.clamping import ClampingConfig
from training.config.parse import from_preset
from training.model.transformer import Transformer

LEAVES = [1.0, 0.8, 0.5, 0.4, 0.3]
STAYS = [1.0] * 5
CLAMP = ClampingConfig("clamp", ("0.0",), until=200)
FORBID = ClampingConfig("forbid")
CLASSES = ("linear", "quadratic", "cubic")


@pytest.fixture
def made(tmp_path):
    """A run of seed `seed` with this clamp, the error without it (`plain`) and as it was trained (`clamped`)."""

    def run(seed, clamp, plain, clamped=None):
        config = replace(from_preset("tiny", "mixed", seed), clamping=clamp)
        directory = tmp_path / f"{clamp.action}-{seed}"
        directory.mkdir()
        for index, ratio in enumerate(plain):
            for name in CLASSES:
                row = {"step": 100 * index, "function_class": name, "inputs": "gaussian", "nmse_tail": ratio}
                row |= {"no_context_tail": 1.0, "prompts_seen": 1, "prompts_total": 1, "flops": 1, "nmse": ratio}
                if clamp.action != "none":
                    row["nmse_tail_clamped"] = None if clamped is None else clamped[index]
                append_rows(directory, [row])
        model = Transformer(config.model, torch.Generator().manual_seed(seed))
        return Checkpoint(directory.name, directory, config, 400, model)

    return run


def prepared(runs, errors_of, monkeypatch, ratio, heads):
    """The study on runs with this final error of each and these measures of their heads."""
    ratios = {(run.name, name): ratio(run) for run in runs for name in CLASSES}
    monkeypatch.setattr(clamping, "measure", partial(errors_of, ratios))
    monkeypatch.setattr(measures, "measure_heads", lambda run, *_: heads(run))
    return study(runs, n_prompts=32, seed=0)


def test_what_was_planted_is_reported(made, errors_of, monkeypatch):
    """The clamped runs leave under the clamp, only; the forbidden ones stay. Seeds differ, pairs by a constant."""
    runs = [made(seed, ClampingConfig(), [1.0, 1.0, 0.8, 0.5, 0.4]) for seed in range(5)]
    runs += [made(seed, CLAMP, [1.0, 1.0, 1.0, 0.5, 0.4], [1.0, 0.8, 0.5, None, None]) for seed in range(5)]
    runs += [made(seed, FORBID, [1.0] * 5, [1.0] * 5) for seed in range(5)]
    shift = {"none": 0.0, "clamp": 0.0, "forbid": 0.5}
    kept = {"none": 0.1, "clamp": 0.7, "forbid": 0.05}

    def ratio(run):
        return 0.3 + 0.02 * int(run.name[-1]) + shift[run.config.clamping.action]

    def heads(run):
        score = kept[run.config.clamping.action] + 0.01 * int(run.name[-1])
        return {"highest": score, "score": score, "effect": score}

    found = prepared(runs, errors_of, monkeypatch, ratio, heads)
    times = found.files["times"].set_index(["arm", "function_class"])
    medians = {arm: times.loc[(arm, "cubic"), "median"] for arm in times.index.unique(0)}
    clamp, forbid = "clamp on 0.0, steps 0 to 200", "forbid on all heads, steps 0 to 3000"
    assert (medians["unclamped"], medians[clamp]) == (200, 100)
    assert times.loc[(forbid, "cubic"), "n_censored"] == 5
    errors = found.files["errors"].set_index(["arm", "function_class", "evaluated"])
    assert errors.loc[(forbid, "linear", "without the clamp"), "difference"] == pytest.approx(0.5)
    assert errors.loc[(forbid, "linear", "as trained"), "difference"] == pytest.approx(0.6)
    assert (clamp, "linear", "as trained") not in errors.index
    text = "\n".join(found.sentences())
    p = "(p = 0.00794, after Holm 0.0476)"
    assert f"Runs of the arm {clamp} leave the plateau of cubic earlier than those of unclamped {p}" in text
    assert f"Runs of the arm {forbid} leave the plateau of cubic later than those of unclamped" in text
    assert f"{forbid}, evaluated without the clamp: the final error on linear is higher than the twins'" in text
    assert f"{clamp}: after training the retrospective score of these heads is higher than the twins'" in text
    assert f"{forbid}: after training the highest retrospective score of a head is lower" in text
    on_screen = [sentence for sentence in found.sentences() if sentence not in found.details]
    assert len(on_screen) <= 5
    forbidden = next(
        sentence for sentence in on_screen if sentence.startswith(f"{forbid}, compared with unclamped twins")
    )
    assert "the plateau is left later on" in forbidden
    assert "the final error without the clamp is higher on linear" in forbidden
    assert forbidden.endswith("the highest retrospective score of a head is lower after training.")


def test_nothing_is_claimed_where_nothing_was_changed(made, errors_of, monkeypatch, rng):
    runs = [made(seed, ClampingConfig(), LEAVES) for seed in range(5)]
    runs += [made(seed, CLAMP, LEAVES, LEAVES) for seed in range(5)]
    noise = {(run.name): value for run, value in zip(runs, rng.normal(size=len(runs)), strict=True)}
    score = {name: {"highest": 0.5 + v, "score": v, "effect": v} for name, v in noise.items()}
    found = prepared(runs, errors_of, monkeypatch, lambda run: 1 + 0.01 * noise[run.name], lambda run: score[run.name])
    text = "\n".join(found.sentences())
    assert "higher" not in text
    assert "lower" not in text
    assert "earlier" not in text
    assert "later" not in text
    assert text.count("does not differ from the twins' beyond chance") == 6


def test_the_heads_of_a_model_are_measured_as_they_are():
    measured = measure_heads(load("zoo:mixed-0"), ("0.1",), 64, 0)
    assert measured["score"] == measured["highest"] > 0.7
    assert measured["effect"] > 0.7
    other = measure_heads(load("zoo:mixed-0"), ("0.6",), 64, 0)
    assert other["score"] < 0.4
    assert other["effect"] < 0.3


def test_a_clamped_run_needs_its_twin(made):
    with pytest.raises(UserError, match="forbid-1 has no unclamped twin"):
        study([made(0, ClampingConfig(), STAYS), made(1, FORBID, STAYS)], n_prompts=16)
    with pytest.raises(UserError, match="none of the runs was trained under a clamp"):
        study([made(2, ClampingConfig(), STAYS)], n_prompts=16)


def test_paired_runs_that_do_not_differ_are_rarely_told_apart(rng):
    """Five pairs that share what their seed does to the error: the interval leaves out 0 in one case in twenty."""
    missed = 0
    for _ in range(2000):
        seeds = rng.normal(size=(5, 1))
        row = paired(seeds + 0.3 * rng.normal(size=(5, 2)))
        missed += row["low"] > 0 or row["high"] < 0
    assert missed / 2000 == pytest.approx(0.05, abs=0.015)
