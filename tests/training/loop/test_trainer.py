import json
import signal
import time

import pytest
import torch

from training.checkpoints.checkpoint import load, read_history, read_resume, snapshot_steps
from training.common.errors import CheckError
from training.config.parse import from_preset
from training.loop import trainer
from training.loop.state import new_state
from training.loop.trainer import train
from training.model.flops import step_flops
from training.sampling import sample_prompts


def weights(directory):
    return (directory / "model.safetensors").read_bytes()


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(quick_config, tmp_path):
    train(quick_config, tmp_path / "a")
    train(quick_config, tmp_path / "b")
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    other = from_preset("tiny", "mixed", 1, ["recipe.steps=1"])
    assert other.seeds != quick_config.seeds


@pytest.mark.slow
def test_a_killed_run_resumed_equals_the_run_that_was_never_killed(interp, quick_config, quick_settings, tmp_path):
    train(quick_config, tmp_path / "whole")
    command = ["train", "--out", tmp_path / "killed", *quick_settings]
    process = interp(*command)
    state = tmp_path / "killed" / "resume" / "state.safetensors"
    deadline = time.monotonic() + 60
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run ended before it was killed"
    saved = read_resume(tmp_path / "killed")
    assert saved is not None
    step_before = saved[1]["step"]
    assert 0 < step_before < 60

    resumed = interp(*command, "--resume")
    assert f"resumed at step {step_before}" in resumed.communicate()[1]
    assert resumed.returncode == 0
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert snapshot_steps(tmp_path / "killed") == snapshot_steps(tmp_path / "whole")
    histories = [
        [{key: row[key] for key in row if key != "seconds"} for row in read_history(tmp_path / name)]
        for name in ("killed", "whole")
    ]
    assert histories[0] == histories[1]


@pytest.mark.sample(1)
@pytest.mark.parametrize("at", [10, 30, 50])
def test_resuming_from_any_save_gives_the_same_weights(quick_config, tmp_path, train_until, at):
    train(quick_config, tmp_path / "whole")
    train_until(quick_config, tmp_path / "cut", at)
    assert train(quick_config, tmp_path / "cut", resume=True) == at
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


@pytest.mark.slow
def test_a_run_cut_before_its_first_save_starts_again_cleanly(quick_config, tmp_path, monkeypatch):
    step = trainer.training_step

    def step_and_stop(state, *rest):
        step(state, *rest)
        if state.step == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "training_step", step_and_stop)
    with pytest.raises(KeyboardInterrupt):
        train(quick_config, tmp_path / "cut")
    monkeypatch.undo()
    assert train(quick_config, tmp_path / "cut", resume=True) == 0
    train(quick_config, tmp_path / "whole")
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    steps = [[row["step"] for row in read_history(tmp_path / name)] for name in ("cut", "whole")]
    assert steps[0] == steps[1]


def test_training_leaves_the_callers_threads_alone(quick_config, tmp_path):
    torch.set_num_threads(2)
    train(quick_config, tmp_path)
    assert torch.get_num_threads() == 2


def test_history_counts_prompts_and_records_every_class(quick_config, tmp_path):
    train(quick_config, tmp_path)
    rows = read_history(tmp_path)
    assert [(row["step"], row["function_class"]) for row in rows] == [
        (step, name) for step in (0, 25, 50, 60) for name in ("linear", "quadratic", "cubic")
    ]
    assert sum(row["prompts_seen"] for row in rows[-3:]) == 60 * 8
    assert rows[0]["train_loss"] is None
    assert rows[3]["train_loss"] > 0
    assert snapshot_steps(tmp_path) == [0, 3, 14, 60]
    assert json.loads((tmp_path / "config.json").read_text())["format_version"] == 2
    assert read_resume(tmp_path) is None


def test_a_snapshot_is_the_model_at_that_step(quick_config, tmp_path):
    train(quick_config, tmp_path)
    initial = new_state(quick_config, "cpu").model
    assert torch.equal(load(f"{tmp_path}@0").model.embed.W_E, initial.embed.W_E)
    assert load(f"{tmp_path}@14").step == 14
    assert torch.equal(load(f"{tmp_path}@60").model.embed.W_E, load(tmp_path).model.embed.W_E)


@pytest.mark.slow
def test_divergence_stops_the_run_and_keeps_the_last_good_state(quick_config, tmp_path, monkeypatch):
    step = trainer.training_step

    def step_that_breaks(state, *rest):
        step(state, *rest)
        if state.step == 33:
            state.model.unembed.b_U.data.fill_(torch.nan)

    monkeypatch.setattr(trainer, "training_step", step_that_breaks)
    with pytest.raises(CheckError, match="diverged by step"):
        train(quick_config, tmp_path / "broken")
    monkeypatch.undo()
    assert load(tmp_path / "broken").step == 30
    assert train(quick_config, tmp_path / "broken", resume=True) == 30
    train(quick_config, tmp_path / "whole")
    assert weights(tmp_path / "broken") == weights(tmp_path / "whole")


@pytest.mark.slow
def test_training_learns_the_linear_class(tmp_path):
    settings = ["recipe.steps=400", "model.n_layers=2", "model.n_heads=4", "model.d_model=32", "model.n_dims=1"]
    train(from_preset("tiny", "single:linear", 0, [*settings, "record.eval_every=400"]), tmp_path)
    first, last = (row["nmse_last"] for row in read_history(tmp_path) if row["function_class"] == "linear")
    assert first > 0.8
    assert last < 0.2


def test_streams_are_separate(quick_config):
    """Task choice and weights do not touch the data stream, and classes do not change what is drawn."""
    prompts = [
        sample_prompts(quick_config, name, new_state(quick_config, "cpu").data, n_prompts=8)
        for name in ("linear", "cubic")
    ]
    assert torch.equal(prompts[0].xs, prompts[1].xs)
    seeds = from_preset("tiny", "mixed", 0).seeds
    assert len({seeds.init, seeds.data, seeds.task}) == 3
    assert seeds != from_preset("tiny", "random", 0).seeds


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    "more",
    [
        ["schedule.batch=mixed", "data.inputs=gaussian,skewed", "schedule.inputs=sequential", "growth.points=4"],
        ["growth.points=3", "growth.points_every=10", "growth.dims=1", "growth.dims_every=20"],
        ["data.classes=markov_chain,associative_recall,sparse_parity", "recipe.loss=no_context"],
        ["recipe.precision=bf16", "instruction.kind=vector", "model.n_ctx=33"],
    ],
    ids=lambda more: more[0],
)
def test_every_kind_of_run_trains_keeps_account_and_resumes_bit_for_bit(quick_settings, tmp_path, train_until, more):
    config = from_preset("tiny", "mixed", 0, [*quick_settings[1::2], *more])
    train(config, tmp_path / "whole")
    train_until(config, tmp_path / "cut", 30)
    assert train(config, tmp_path / "cut", resume=True) == 30
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    last = [row for row in read_history(tmp_path / "cut") if row["step"] == 60]
    assert len(last) == len(config.data.classes) * len(config.data.inputs)
    assert sum(row["prompts_seen"] for row in last) == last[0]["prompts_total"] == 60 * 8
    assert last[0]["flops"] <= 60 * step_flops(config.model, 8, 16, config.layout.n_instruction)
    assert (last[0]["flops"] < 60 * step_flops(config.model, 8, 16)) is any("growth.points" in one for one in more)
