"""Architectures whose heads are known: the planted circuit under three norms, and networks that do nothing."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import count
from typing import Any

import circuits
import pytest
import torch
from torch import Tensor

from analyses.findings import Findings
from analyses.studies.architectures.study import study
from training.checkpoints.checkpoint import Checkpoint
from training.common.output import records
from training.common.table_rows import where
from training.config.config import Seeds
from training.model.transformer import Transformer

numbers = count(1)
READERS = ("W_Q", "W_K", "W_V", "W_in", "W_U")
"""Of what a norm gives; in the planted circuit that is the residual stream divided by `circuits.SCALE`."""


def rebuilt(checkpoint: Checkpoint, name: str, *, reach: float = 1.0, **architecture: Any) -> Checkpoint:
    """The planted circuit in another architecture and with other seeds; what head 0.1 writes is multiplied by
    `reach`."""
    config = replace(checkpoint.config, model=replace(checkpoint.config.model, **architecture))
    config = replace(config, seeds=Seeds(*(next(numbers) for _ in range(3))))
    model = Transformer(config.model).requires_grad_(False)
    weights: Mapping[str, Tensor] = checkpoint.model.state_dict()
    for key, parameter in model.state_dict().items():
        factor = 1 / circuits.SCALE if config.model.norm == "none" and key.endswith(READERS) else 1
        parameter.copy_(weights[key] * factor)
    model.layers[0].attn.W_O[1] *= reach
    return Checkpoint(name, checkpoint.directory, config, 0, model)


def idle(checkpoint: Checkpoint, name: str) -> Checkpoint:
    """Rotary positions, and nothing written: every head attends evenly, and the prediction is a small constant."""
    config = replace(checkpoint.config, model=replace(checkpoint.config.model, positions="rotary"))
    config = replace(config, seeds=Seeds(*(next(numbers) for _ in range(3))))
    model = Transformer(config.model).requires_grad_(False)
    for key, parameter in model.named_parameters():
        if not key.endswith(".w"):
            parameter.zero_()
    model.unembed.b_U.fill_(0.01)
    return Checkpoint(name, checkpoint.directory, config, 0, model)


@pytest.fixture(scope="module")
def findings(planted: Checkpoint) -> Findings:
    models = [rebuilt(planted, f"default-{seed}") for seed in range(2)]
    models += [rebuilt(planted, "rms", norm="rms")]
    models += [rebuilt(planted, f"bare-{seed}", norm="none", reach=0.04) for seed in range(2)]
    models += [idle(planted, "rotary")]
    return study(models, n_prompts=128, seed=0)


def test_architectures_of_the_circuit_predict_the_same(planted: Checkpoint):
    prompt = torch.randn(8, 32, 1, generator=torch.Generator().manual_seed(0))
    expected = planted.model.predict(prompt)
    for norm in ("rms", "none"):
        predictions = rebuilt(planted, norm, norm=norm).model.predict(prompt)
        assert (predictions - expected).abs().max() < 0.02 * expected.abs().max()


@pytest.mark.slow
def test_what_is_learned_is_counted_by_architecture(findings: Findings):
    counts = where(findings.files["counts"], threshold=0.9)
    assert {row["variant"]: (row["n_left"], row["n_seeds"]) for row in records(counts)} == {
        "reference": (2, 2),
        "model.norm=none": (0, 2),
        "model.norm=rms": (1, 1),
        "model.positions=rotary": (0, 1),
    }


@pytest.mark.slow
def test_heads_are_counted_where_a_class_was_learned(findings: Findings):
    heads = {row["variant"]: row for row in records(findings.files["heads"])}
    planted = {name: (row["n_learned"], row["n_with"], row["n_stayed_with"]) for name, row in heads.items()}
    assert planted == {
        "reference": (2, 2, 0),
        "model.norm=none": (0, 0, 2),
        "model.norm=rms": (1, 1, 0),
        "model.positions=rotary": (0, 0, 0),
    }
    assert heads["reference"]["layers"] == "0"
    row = heads["model.positions=rotary"]
    assert row["highest_max"] == pytest.approx(row["chance"], rel=1e-4)  # even attention is what chance means


@pytest.mark.slow
def test_the_cost_is_that_of_the_planted_head(findings: Findings):
    effects = {row["variant"]: row for row in records(where(findings.files["effects"], mode="mean"))}
    for variant, n_seeds in (("reference", 2), ("model.norm=rms", 1)):
        assert effects[variant]["effect"] == pytest.approx(1, abs=0.05)
        assert effects[variant]["n_seeds"] == n_seeds
    assert "model.positions=rotary" not in effects  # no set to remove


@pytest.mark.slow
def test_the_verdict_is_about_every_architecture(findings: Findings):
    text = "\n".join(findings.sentences())
    assert "The reference is norm=layer, positions=learned, d_mlp=320, act=gelu_new." in text
    assert "model.norm=rms: of 1 seed that left the plateau on a class, 1 have a head with a retrospective" in text
    assert "model.norm=none: none of 2 seeds left the plateau on any class; 2 have a head" in text
    assert "model.positions=rotary: no head scores above 0.5, and no model has a clear in-context gain to lose." in text
    assert "No count differs from the reference's beyond chance" in text
