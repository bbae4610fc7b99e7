"""Prompts of a user's own: the same numbers as for the same prompts drawn inside; bad files are refused in a line."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

import interp
from interp import OwnPrompts, load
from training.checkpoints.provenance import sha256
from training.common.errors import UserError
from training.evaluation.evaluate import error_curves, evaluation_prompts
from training.evaluation.own_files import read_prompts
from training.evaluation.own_run import on_prompts

N = 24  # prompts of each half


@pytest.fixture(scope="module")
def checkpoint():
    return load("zoo:mixed-0")


@pytest.fixture(scope="module")
def drawn(checkpoint):
    """Prompts of linear, in an order whose halves are those of the streams `test` and `selection` at seed 0."""
    test, selection = (
        evaluation_prompts(checkpoint.config, "linear", n_prompts=N, seed=0, stream=stream)
        for stream in ("test", "selection")
    )
    numbered = OwnPrompts(torch.zeros(2 * N, 1, 1), torch.arange(1.0, 2 * N + 1)[:, None])
    order = torch.cat([numbered.half(stream, 0)[1] for stream in ("test", "selection")])[:, 0].long() - 1
    back = order.argsort()
    return OwnPrompts(torch.cat((test.xs, selection.xs))[back], torch.cat((test.ys, selection.ys))[back])


@pytest.fixture
def saved(drawn, tmp_path):
    """The same prompts in each kind of file."""
    arrays = {"xs": drawn.xs.numpy(), "ys": drawn.ys.numpy()}
    np.savez(tmp_path / "a.npz", **arrays)
    save_file({name: getattr(drawn, name).contiguous() for name in arrays}, tmp_path / "a.safetensors")
    rows = pd.DataFrame(arrays["xs"].reshape(-1, 4), columns=["x0", "x1", "x2", "x3"])
    rows = rows.assign(y=arrays["ys"].ravel(), prompt=np.repeat(range(2 * N), 16), point=np.tile(range(16), 2 * N))
    rows.sample(frac=1, random_state=0).to_csv(tmp_path / "a.csv", index=False)
    return {kind: tmp_path / f"a.{kind}" for kind in ("npz", "safetensors", "csv")}


@pytest.mark.parametrize("kind", ["npz", "safetensors", "csv"])
def test_every_kind_of_file_holds_the_same_prompts(saved, drawn, kind):
    read = read_prompts(saved[kind])
    torch.testing.assert_close(read.xs, drawn.xs, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(read.ys, drawn.ys, rtol=1e-6, atol=1e-7)


def test_each_half_holds_what_the_other_does_not(drawn):
    halves = [drawn.half(stream, 3)[1] for stream in ("test", "selection")]
    assert sorted(torch.cat(halves)[:, 0].tolist()) == sorted(drawn.ys[:, 0].tolist())
    assert torch.equal(drawn.half("reference", 3)[1], halves[1])
    assert not torch.equal(drawn.half("test", 4)[1], halves[0])


def test_prompts_of_a_class_give_the_numbers_of_the_class(checkpoint, drawn):
    """Errors are in units of the mean of y², which is all that differs from prompts that are drawn."""
    tested = OwnPrompts(*drawn.half("test", 0))
    unit = tested.second_moment
    ours = interp.score(checkpoint, prompts=tested, n_prompts=N).values["data"]
    theirs = interp.score(checkpoint, "linear", n_prompts=N).values["linear"]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    own = interp.patterns(checkpoint, "0.1", prompts=drawn, n_prompts=N)
    inside = interp.patterns(checkpoint, "0.1", "linear", n_prompts=N)
    np.testing.assert_allclose(own.values, inside.values, atol=1e-6)
    common = {"n_prompts": N, "seed": 0, "class_baseline": False}
    curves = error_curves(on_prompts(checkpoint, tested, is_split=False), ["data"], **common)
    reference = error_curves(checkpoint, ["linear"], **common)
    np.testing.assert_allclose(curves["error"] * unit, reference["error"], atol=1e-5)


def test_ablations_and_patches_are_those_of_the_class(checkpoint, drawn):
    """Zero, which needs no other prompts: with the same ones, effects are the same."""
    common = {"modes": "zero", "n_controls": 3, "n_prompts": N, "scores": np.zeros((3, 8))}
    ours = interp.ablate(checkpoint, "0.1,1.2", prompts=drawn, **common).table
    theirs = interp.ablate(checkpoint, "0.1,1.2", "linear", **common).table
    assert ours["function_class"].unique() == ["data"]
    for column in ("effect", "direct_effect", "p_value"):
        np.testing.assert_allclose(ours[column], theirs[column], atol=1e-6)
    patched = {"site": "resid_post", "corrupt": "pair:0", "tokens": "query", "n_prompts": N}
    assert interp.patch(checkpoint, prompts=drawn, **patched).table["effect"].iloc[-1] == pytest.approx(1)


def test_heads_are_chosen_and_means_taken_on_the_other_half(checkpoint, drawn):
    result = interp.ablate(checkpoint, "top:1", prompts=drawn, n_controls=2)
    assert (set(result.table["heads"]), result.n_prompts) == ({"0.1"}, N)
    assert set(result.table["mode"]) == {"zero", "mean", "resample"}


def test_a_command_takes_a_file_and_names_it(saved, tmp_path, outcome, checkpoint, drawn):
    out = tmp_path / "out"
    given = ("ablate", "--ckpt", "zoo:mixed-0", "--heads", "0.1", "--controls", 2, "--data", saved["npz"])
    done = outcome(*given, "--json", "--out", out)
    assert done.code == 0, done.err
    rows = pd.DataFrame(json.loads(done.out)["results"])
    inside = interp.ablate(checkpoint, "0.1", prompts=drawn, n_controls=2).table
    np.testing.assert_allclose(rows["effect"], inside["effect"], atol=1e-6)
    run = json.loads((out / "run.json").read_text())
    assert run["prompts"] == N
    assert run["data"] == {"name": str(saved["npz"]), "sha256": sha256(saved["npz"].read_bytes()).hexdigest()}


@pytest.mark.parametrize("command", [("eval",), ("score",), ("lens",), ("patch", "--corrupt", "noise")], ids=" ".join)
def test_every_command_says_data_where_it_says_the_class(command, saved, outcome):
    done = outcome(*command, "--ckpt", "zoo:mixed-0", "--data", saved["safetensors"], "--json")
    assert done.code == 0, done.err
    document = json.loads(done.out)
    rows = document["curves" if command == ("eval",) else "results"]
    assert {row["function_class"] for row in rows} == {"data"}


def test_shorter_prompts_of_fewer_dimensions_are_taken(checkpoint, drawn):
    small = OwnPrompts(drawn.xs[:, :6, :2], drawn.ys[:, :6])
    assert interp.patterns(checkpoint, "0.1", prompts=small).values.shape == (1, 12, 12)
    with pytest.raises(UserError, match="32 points, zoo:mixed-0 takes at most 16"):
        interp.score(checkpoint, prompts=OwnPrompts(drawn.xs.repeat(1, 2, 1), drawn.ys.repeat(1, 2)))
    with pytest.raises(UserError, match="8 dimensions, zoo:mixed-0 takes at most 4"):
        interp.score(checkpoint, prompts=OwnPrompts(drawn.xs.repeat(1, 1, 2), drawn.ys))
    with pytest.raises(UserError, match="leave one of the two out"):
        interp.score(checkpoint, "linear", prompts=small)


XS, YS = np.ones((8, 3, 2)), np.ones((8, 3))
BAD = {
    "wrong names": ({"x": XS, "ys": YS}, "it holds x, ys; xs and ys are needed"),
    "not a number": ({"xs": XS * np.nan, "ys": YS}, "xs holds values that are not finite"),
    "infinite in float32": ({"xs": XS, "ys": YS * 1e300}, "ys holds values that are not finite"),
    "text": ({"xs": XS.astype(str), "ys": YS}, "xs holds <U32, real numbers are needed"),
    "complex": ({"xs": XS, "ys": YS * 1j}, "ys holds complex128, real numbers are needed"),
    "empty": ({"xs": XS[:0], "ys": YS[:0]}, r"xs [0, 3, 2] and ys [0, 3]"),
    "too few": ({"xs": XS[:3], "ys": YS[:3]}, "3 prompts, at least 4 are needed"),
    "ys of three axes": ({"xs": XS, "ys": XS}, r"ys [8, 3, 2]: [batch point dim] and [batch point]"),
    "other lengths": ({"xs": XS, "ys": YS[:, :2]}, r"xs [8, 3, 2] and ys [8, 2]"),
    "constant zero": ({"xs": XS, "ys": YS * 0}, "every y is 0"),
    "objects": ({"xs": XS.astype(object), "ys": YS}, "nothing is unpickled"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_one_line(name, tmp_path, refused):
    arrays, message = BAD[name]
    np.savez(tmp_path / "a.npz", **arrays)
    assert message in refused("score", "--ckpt", "zoo:mixed-0", "--data", tmp_path / "a.npz")


class Trojan:
    def __reduce__(self):
        return pytest.fail, ("was unpickled",)


FILES = {
    "a.npz": (pickle.dumps(Trojan()), "it is a pickle, not an npz file"),
    "b.npz": (b"PK\x03\x04 and no more", "File is not a zip file"),
    "a.txt": (b"", "a file that ends in .npz, .safetensors, .csv is needed"),
    "a.safetensors": (b"nothing", "is damaged"),
    "a.csv": (b"prompt,point,x0,z\n0,0,1,1\n", "its columns are prompt, point, x0, z"),
    "b.csv": (b"prompt,point,x0,y\n0,0,1,1\n0,2,1,1\n", "counted from 0, once each"),
    "c.csv": (b"prompt,point,x0,y\n0,0,one,1\n1,0,1,1\n", "real numbers are needed"),
    "d.csv": (b"", "No columns to parse"),
    "e.csv": (b"\xff\xfe\x00", "codec can't decode"),
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_such_file_is_refused_in_one_line(name, tmp_path, refused):
    content, message = FILES[name]
    (tmp_path / name).write_bytes(content)
    assert message in refused("eval", "--ckpt", "zoo:mixed-0", "--data", tmp_path / name)


def test_options_that_contradict_a_file_are_refused(saved, tmp_path, refused):
    given = ("--ckpt", "zoo:mixed-0", "--data", saved["npz"])
    assert "give one of the two" in refused("score", *given, "--classes", "linear")
    assert "there is no such file" in refused("score", *given[:2], "--data", tmp_path / "none.npz")
    assert "name none" in refused("score", *given, "--shift", "scale_x:2")
    assert "cannot be drawn with another" in refused("patch", *given)
    assert "cannot be drawn" in refused("eval", "--ckpt", "zoo:mixed-0", "--classes", "data")


def test_the_prediction_without_a_context_is_given_or_0(checkpoint, drawn, tmp_path):
    shifted = {"xs": drawn.xs.numpy(), "ys": drawn.ys.numpy() + 3}
    np.savez(tmp_path / "a.npz", **shifted, no_context=3.0)
    save_file(
        {**{k: torch.tensor(v) for k, v in shifted.items()}, "no_context": torch.tensor([3.0])},
        tmp_path / "a.safetensors",
    )
    unit = np.square(shifted["ys"]).mean()
    variance = np.square(shifted["ys"] - 3).mean()
    for name in ("a.npz", "a.safetensors"):
        own = read_prompts(tmp_path / name)
        config = on_prompts(checkpoint, own, is_split=False).config
        assert config.no_context_scale("data").value == pytest.approx(variance, rel=1e-6)
        curves = error_curves(on_prompts(checkpoint, own, is_split=False), ["data"], n_prompts=2 * N)
        errors = curves.loc[curves["predictor"] == "no_context", "error"]
        assert np.mean(errors) == pytest.approx(variance / unit, rel=1e-5)
    plain = on_prompts(checkpoint, OwnPrompts(**shifted), is_split=False).config
    assert plain.no_context_scale("data").value == pytest.approx(unit, rel=1e-6)
    for wrong in (np.nan, [1.0, 2.0], "three"):
        with pytest.raises(UserError, match="no_context"):
            OwnPrompts(**shifted, no_context=wrong)
