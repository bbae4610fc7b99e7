import pandas as pd
import pytest
import torch

from interp.ablation.ablate import ablate
from interp.ablation.modes import Mode
from interp.ablation.runner import AblationRunner
from interp.ablation.store import FILE, Store
from interp.model.heads import Head
from training.checkpoints.checkpoint import load
from training.common.errors import UserError
from training.tasks.function_classes import FAMILIES
from training.tasks.function_classes.hermite import Hermite

SETS = [(Head(0, 1),), (Head(1, 2),)]


def run(checkpoint, store, **more):
    common = {"modes": ["mean", "resample"], "n_prompts": 300, "n_controls": 1, "store": store}
    return ablate(checkpoint, SETS, ["linear"], **(common | more)).table


@pytest.fixture
def measured(monkeypatch):
    """How many sets were really run."""
    calls, measure = [], AblationRunner.measure_group

    def counted(self, chunk, mode, group, full):
        calls.extend(group)
        return measure(self, chunk, mode, group, full)

    monkeypatch.setattr(AblationRunner, "measure_group", counted)
    return calls


@pytest.mark.slow
def test_what_was_measured_is_not_measured_again(tmp_path, measured):
    checkpoint = load("zoo:mixed-0")
    whole = run(checkpoint, None)
    first = run(checkpoint, Store(tmp_path))
    n_first = len(measured)
    second = run(checkpoint, Store(tmp_path))
    assert len(measured) == n_first
    pd.testing.assert_frame_equal(first, whole)
    pd.testing.assert_frame_equal(second, whole)


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_where_it_stopped(tmp_path, measured, monkeypatch):
    checkpoint = load("zoo:mixed-0")
    whole = run(checkpoint, None)
    n_whole = len(measured)
    write, written = Store.write, []

    def write_and_stop(self, about, found):
        write(self, about, found)
        written.append(found)
        if len(written) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Store, "write", write_and_stop)
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint, Store(tmp_path))
    monkeypatch.setattr(Store, "write", write)
    measured.clear()
    pd.testing.assert_frame_equal(run(checkpoint, Store(tmp_path)), whole)
    assert 0 < len(measured) < n_whole


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [{"seed": 1}, {"n_prompts": 299}, {"points": "0-3"}, {"site": "value"}, {"tokens": "y"}]
)
def test_another_question_is_measured_anew(tmp_path, measured, more):
    checkpoint = load("zoo:mixed-0")
    run(checkpoint, Store(tmp_path), modes=["mean"])
    n_first = len(measured)
    run(checkpoint, Store(tmp_path), modes=["mean"], **more)
    assert len(measured) >= 2 * n_first  # more, where other prompts give other norms to match


@pytest.mark.slow
def test_other_weights_are_measured_anew(tmp_path, measured):
    checkpoint = load("zoo:mixed-0")
    before = run(checkpoint, Store(tmp_path), n_controls=4)
    n_first = len(measured)
    with torch.no_grad():
        checkpoint.model.layers[1].attn.W_O[2] *= 1.5
    after = run(checkpoint, Store(tmp_path), n_controls=4)
    assert len(measured) >= 2 * n_first  # more, where other output norms match
    assert not before["effect"].equals(after["effect"])


@pytest.mark.slow
def test_what_a_notebook_defines_is_never_kept(tmp_path, measured, monkeypatch):
    """Edited under the same name, it would be read back as what it was."""
    checkpoint = load("zoo:mixed-0")
    for factor in (0.0, 1.0):
        mode = Mode("mine", "a share of the mean", lambda reference, factor=factor: factor * reference.mean)
        mine = run(checkpoint, Store(tmp_path), modes=[mode])
        pd.testing.assert_frame_equal(mine, run(checkpoint, None, modes=[mode]))
    run(checkpoint, Store(tmp_path), modes=["mean"])
    n_first = len(measured)
    monkeypatch.setitem(FAMILIES, "linear", type("Mine", (Hermite,), {})(1))
    run(checkpoint, Store(tmp_path), modes=["mean"])
    assert len(measured) > n_first


def test_a_damaged_store_is_one_line(tmp_path):
    (tmp_path / FILE).write_bytes(b"not a database at all, but long enough to look like one" * 20)
    with pytest.raises(UserError, match="delete it to start the sweep anew"):
        Store(tmp_path)
