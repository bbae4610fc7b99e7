"""The command line as its users meet it: two streams and an exit code."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from analyses.studies.registry import STUDIES
from interp.names import METRIC_NAMES, SCORE_DEFINITIONS, WEIGHTING_DEFINITIONS
from interp.scores.score import score
from training.checkpoints.checkpoint import load, zoo_names, zoo_path
from training.common.interruption import Interruption
from training.common.output import records
from training.config.parse import settable_keys
from training.model.flops import step_flops
from training.names import BASELINE_NAMES, CLASS_NAMES, INPUT_NAMES, SHIFT_NAMES
from training.tasks.baselines import BASELINES

COMMANDS = [["train"], ["eval"], ["score"], ["ablate"], ["zoo", "list"], ["zoo", "path"], ["study", "retrospective"]]
COMMANDS += [["patch"], ["path"], ["lens"], ["probe"], ["report"]]
COMMANDS += [["history"], ["classes"], ["upgrade"], ["doctor"], ["import"], ["export"]]
COMMANDS += [["study", name] for name in STUDIES]


def test_help_imports_little_and_nothing_heavy():
    """That is what makes it fast, on any machine: 380 modules, most of them of rich, where torch has 1,100."""
    code = (
        "import sys; sys.argv = ['interp', '--help']\n"
        "from interp.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = set('torch transformer_lens matplotlib pandas numpy scipy sklearn'.split()) & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert len(sys.modules) < 500, len(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example_that_names_it(command, outcome):
    done = outcome(*command, "--help")
    assert done.code == 0
    assert "Example" in done.out
    assert f"interp {' '.join(command)}" in done.out


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_name_that_has_to_be_typed_is_cut_in_help(command, outcome, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    cut = re.findall(r"[-\w]{2,}…", outcome(*command, "--help").out)
    assert not cut


def test_the_keys_of_set_are_listed_and_the_next_commands_named(tmp_path, quick_settings, outcome):
    listed = outcome("train", "--keys")
    assert listed.code == 0
    assert all(key in listed.out for key in settable_keys())
    trained = outcome("train", "--out", tmp_path / "a run", *quick_settings)
    assert f"next: interp history --ckpt '{tmp_path}/a run' or interp study retrospective --ckpt" in trained.err


def test_no_command_prints_the_help(outcome):
    assert "Which attention heads" in outcome().out


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory, quick_settings, interp):
    directory = tmp_path_factory.mktemp("runs") / "quick"
    with interp("train", "--out", directory, *quick_settings) as process:
        _, err = process.communicate()
    assert process.returncode == 0, err
    return directory


@pytest.mark.slow
def test_eval_score_and_ablate_work_on_a_run_and_its_snapshots(run_dir, outcome):
    for step in ("", "@14"):
        for command in (["eval"], ["score"], ["ablate", "--heads", "top:1", "--controls", 3]):
            done = outcome(*command, "--ckpt", f"{run_dir}{step}", "--prompts", 16, "--json")
            assert done.code == 0, done.err
            document = json.loads(done.out)
            about = document["checkpoints"][0] if command == ["eval"] else document
            assert about["step"] == (14 if step else 60)


@pytest.mark.sample(1)
@pytest.mark.parametrize("curriculum", ["sequential", "random", "single:linear", "single:quadratic", "single:cubic"])
def test_every_curriculum_trains(curriculum, tmp_path, quick_settings, outcome):
    done = outcome("train", "--curriculum", curriculum, "--out", tmp_path / "run", *quick_settings)
    assert done.code == 0, done.err
    assert load(tmp_path / "run").config.curriculum == curriculum


def test_eval_prints_a_table_and_json_has_the_same_numbers(interp, outcome):
    arguments = ("eval", "--ckpt", "zoo:mixed-0", "--prompts", 64, "--classes", "linear")
    with interp(*arguments, stdout=subprocess.PIPE) as process:
        table, err = process.communicate()
    assert process.returncode == 0, err
    document = json.loads(outcome(*arguments, "--json").out)
    last = {row["predictor"]: row["error"] for row in document["curves"] if row["examples"] == 15}
    assert last["least_squares"] < 1e-6 < last["model"] < 0.2 < last["no_context"]
    assert f"{last['model']:.3f}" in table
    assert "MSE / E[y²]" in table


def test_eval_compares_checkpoints_under_a_shift(tmp_path, outcome):
    arguments = ("eval", "--ckpt", "zoo:mixed-0", "--ckpt", "zoo:linear-0", "--classes", "linear", "--prompts", 64)
    done = outcome(*arguments, "--shift", "orthogonal_query", "--baselines", "averaging", "--out", tmp_path)
    assert done.code == 0, done.err
    assert "shift orthogonal_query" in done.out
    curves = pd.read_csv(tmp_path / "error_curves.csv")
    assert set(curves["checkpoint"]) == {"zoo:mixed-0", "zoo:linear-0"}
    assert set(curves["predictor"]) == {"model", "least_squares", "averaging", "no_context", "zero"}
    assert set(curves["examples"]) == {0, 1, 2, 3}  # four dims: no fifth x is orthogonal to four
    error = {
        name: np.mean([row["error"] for row in records(curves) if row["predictor"] == name])
        for name in ("zero", "least_squares")
    }
    assert error["least_squares"] == pytest.approx(
        error["zero"], rel=1e-3
    )  # nothing can be known, and least squares says so
    assert (tmp_path / "error_curves.png").stat().st_size > 10_000


def test_eval_on_other_inputs_says_where_no_mean_exists(outcome):
    done = outcome(
        "eval", "--ckpt", "zoo:mixed-0", "--classes", "linear", "--inputs", "uniform,cauchy", "--prompts", 64
    )
    assert done.code == 0, done.err
    assert "E[y²] is infinite for linear on cauchy" in " ".join(done.out.split())
    assert "linear, uniform, model" in done.out


def test_classes_names_everything_that_can_be_named(outcome):
    document = json.loads(outcome("classes", "--json").out)
    names: dict[str, list[str]] = {}
    for entry in document["names"]:
        names.setdefault(entry["kind"], []).append(entry["name"])
    assert names == {"function class": [*CLASS_NAMES], "input distribution": [*INPUT_NAMES], "shift": [*SHIFT_NAMES]}
    assert [*BASELINE_NAMES] == [*BASELINES]


@pytest.mark.slow
def test_history_says_when_a_run_converged_and_at_what_price(tmp_path, quick_settings, outcome):
    given = ["--set", "recipe.steps=400", "--set", "model.n_dims=1", "--set", "model.d_model=32"]
    run = tmp_path / "run"
    done = outcome("train", "--curriculum", "single:linear", "--out", run, *quick_settings, *given)
    assert done.code == 0, done.err
    (row,) = [
        row
        for row in json.loads(outcome("history", "--ckpt", run, "--converged-below", "0.9", "--json").out)["runs"]
        if row["function_class"] == "linear"
    ]
    assert 25 <= row["step"] <= 400
    assert row["prompts_seen"] == row["prompts_total"] == 8 * row["step"]
    config = load(run).config
    assert row["flops"] == row["step"] * step_flops(config.model, 8, config.data.n_points)
    assert "convergence: step, data, compute and time" in outcome("history", "--ckpt", run).out


def test_a_former_name_of_an_option_or_setting_is_accepted_and_reported(tmp_path, quick_settings, outcome):
    former = outcome("history", "--ckpt", "zoo:mixed-0", "--fraction", "0.9", "--json")
    current = outcome("history", "--ckpt", "zoo:mixed-0", "--converged-below", "0.9", "--json")
    assert former.err == "--fraction is now called --converged-below\n"
    old, new = (json.loads(done.out) for done in (former, current))
    assert old.pop("run") == new.pop("run") | {"command": "interp history --ckpt zoo:mixed-0 --fraction 0.9"}
    assert old == new
    assert "--fraction" not in outcome("history", "--help").out
    run = tmp_path / "run"
    done = outcome(
        "train", "--curriculum", "single:linear", "--out", run, *quick_settings, "--set=recipe.lr_beside=0.5"
    )
    assert done.err.splitlines()[0] == "recipe.lr_beside is now called recipe.lr_adamw"
    assert json.loads((run / "config.json").read_text())["run"]["recipe"]["lr_adamw"] == 0.5


def test_a_run_from_before_a_setting_was_renamed_is_loaded_and_resumed(tmp_path, quick_settings, outcome):
    run, settings = tmp_path / "run", [*quick_settings, "--set=recipe.lr_beside=0.5"]
    assert outcome("train", "--out", run, *settings).code == 0
    document = json.loads((run / "config.json").read_text())
    recipe = document["run"]["recipe"]
    recipe["lr_beside"] = recipe.pop("lr_adamw")
    (run / "config.json").write_text(json.dumps(document))
    assert load(run).config.recipe.lr_adamw == 0.5
    resumed = outcome("train", "--out", run, *settings, "--resume")
    assert resumed.code == 0
    assert "is finished" in resumed.err


@pytest.mark.slow
def test_paper_units_are_mse_over_dims(outcome):
    arguments = ("eval", "--ckpt", "zoo:mixed-0", "--prompts", 64, "--json")
    ours, paper = (json.loads(outcome(*arguments, *more).out)["curves"] for more in ((), ("--units", "paper")))
    assert {row["units"] for row in paper} == {"paper"}
    assert [row["error"] for row in paper] == pytest.approx([row["error"] / 4 for row in ours])  # E[y²] = 1, 4 dims


def test_score_json_is_the_contract(tmp_path, outcome):
    done = outcome("score", "--ckpt", "zoo:mixed-0", "--prompts", 64, "--json", "--out", tmp_path)
    document = json.loads(done.out)
    ours = score(load("zoo:mixed-0"), n_prompts=64)
    assert document["chance"] == pytest.approx(ours.chance)
    for name, values in ours.values.items():
        np.testing.assert_allclose(document["scores"][name], values, rtol=1e-6)
    rows = pd.read_csv(tmp_path / "scores.csv")
    assert set(rows["function_class"]) == set(ours.values)
    assert [*rows.columns] == [*document["results"][0]] == ROW
    np.testing.assert_allclose(rows["value"], [row["value"] for row in document["results"]], rtol=1e-6)


ROW = ["checkpoint", "step", "score", "by", "function_class", "inputs", "shift", "points"]
ROW += ["layer", "head", "value", "ci_low", "ci_high", "chance"]


@pytest.mark.slow
def test_score_json_has_every_combination_and_the_first_one_on_top(tmp_path, outcome):
    given = (
        "--score",
        "lookup,self",
        "--points",
        "1-7,8-15",
        "--shift",
        "none,scale_x:2",
        "--inputs",
        "uniform,gaussian",
    )
    both = ("--ckpt", "zoo:linear-0", "--ckpt", "zoo:mixed-0", "--classes", "cubic,linear", "--weighting", "value")
    done = outcome("score", *both, *given, "--prompts", 8, "--json", "--out", tmp_path)
    assert done.code == 0, done.err
    document = json.loads(done.out)
    rows = pd.DataFrame(document["results"])
    assert len(rows) == 2**6 * 24
    assert rows.groupby(["checkpoint", "score", "function_class", "inputs", "shift", "points"]).ngroups == 2**6
    first = score(
        load("zoo:linear-0"),
        ["cubic", "linear"],
        kind="lookup",
        by="value",
        inputs="uniform",
        points=slice(1, 8),
        n_prompts=8,
    )
    assert document["chance"] == pytest.approx(first.chance)
    for name in ("cubic", "linear"):
        np.testing.assert_allclose(document["scores"][name], first.values[name], rtol=1e-5)
    where = {key: document[key] for key in ("checkpoint", "score", "by", "inputs", "shift", "points")}
    assert where == {
        "checkpoint": "zoo:linear-0",
        "score": "lookup",
        "by": "value",
        "inputs": "uniform",
        "shift": "none",
        "points": "1-7",
    }
    assert (tmp_path / "scores.png").stat().st_size > 50_000


def test_score_compares_independent_runs_by_rank_and_snapshots_by_head(run_dir, outcome):
    common = ("--prompts", 16, "--classes", "linear,cubic", "--top", 2)
    text = outcome("score", "--ckpt", "zoo:mixed-0", "--ckpt", "zoo:linear-0", *common).out
    assert "heads of independent runs do not correspond by their numbers" in " ".join(text.split())
    comparison = text[text.index("mean over classes") :]
    for name in ("zoo:mixed-0", "zoo:linear-0"):
        mean = score(load(name), n_prompts=16).mean(["linear", "cubic"])
        assert f"0.1  {mean[0, 1]:.3f}" in comparison
    text = outcome("score", "--ckpt", run_dir, "--ckpt", f"{run_dir}@14", *common).out
    assert "snapshots of one run, head by head" in " ".join(text.split())


def test_several_scores_of_one_class_are_one_table_of_heads_by_scores(outcome):
    text = outcome("score", "--ckpt", "zoo:mixed-0", "--score", "retrospective,lookup,self", "--classes", "linear").out
    (row,) = [line for line in text.splitlines() if line.startswith("│ 0.1 ")]
    assert [float(cell) for cell in row.split("│")[2:-1]] == pytest.approx([0.809, 0.214, 0.009], abs=0.002)
    (last,) = [line for line in text.splitlines() if line.startswith("│ chance")]
    assert [float(cell) for cell in last.split("│")[2:-1]] == pytest.approx([0.106, 0.091, 0.099], abs=0.001)


def test_score_help_defines_what_it_can_do(outcome):
    text = " ".join(outcome("score", "--help").out.split())
    for name, definition in (SCORE_DEFINITIONS | WEIGHTING_DEFINITIONS).items():
        assert f"{name}: {definition}" in text


def test_ablate_json_is_the_contract(tmp_path, outcome):
    arguments = ("ablate", "--ckpt", "zoo:mixed-0", "--heads", "0.1", "--prompts", 64, "--controls", 3, "--json")
    done = outcome(*arguments, "--out", tmp_path)
    document = json.loads(done.out)
    assert document["heads"] == ["0.1"]
    assert document["seed"] == 0
    wanted = [
        "heads",
        "function_class",
        "mode",
        "nmse_before",
        "nmse_after",
        "effect",
        "ci_low",
        "ci_high",
        "p_value",
        "n_controls",
    ]
    assert len(document["results"]) == 9
    for row in document["results"]:
        assert set(wanted) <= set(row)
        assert (row["n_controls"], row["p_value"]) == (3, None if row["function_class"] == "cubic" else 0.25)  # no gain
    null = pd.read_csv(tmp_path / "ablation_null.csv")
    assert null.groupby("match").size().to_dict() == {"layer": 9 * 3, "size": 9 * 3, "norm": 9 * 3}
    assert json.loads(outcome(*arguments).out) == document


@pytest.mark.slow
def test_a_set_of_any_size_has_a_figure(tmp_path, outcome):
    arguments = ("ablate", "--ckpt", "zoo:mixed-0", "--prompts", 16, "--mode", "mean", "--classes", "linear")
    assert outcome(*arguments, "--heads", "all", "--out", tmp_path / "all").code == 0
    assert (tmp_path / "all" / "ablation.png").exists()
    assert outcome(*arguments, "--heads", "each", "--controls", 0, "--out", tmp_path / "each").code == 0
    assert [path.name for path in (tmp_path / "each").glob("*.png")] == ["effects.png"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("design", "files"),
    [
        ("keep", {"ablation.csv", "ablation_null.csv", "ablation_curves.csv", "ablation.png"}),
        ("cumulative", {"cumulative.csv", "cumulative_area.csv", "cumulative.png"}),
        ("pairs", {"pairs.csv", "pairs.png"}),
    ],
)
def test_every_design_prints_writes_and_draws(tmp_path, design, files, outcome):
    arguments = ("ablate", *CKPT, "--prompts", 32, "--mode", "mean,noise", "--classes", "linear", "--controls", 2)
    arguments = (*arguments, "--heads", "0.1,1.1,2.5", "--design", design, "--points", "4-7,12-15")
    done = outcome(*arguments, "--out", tmp_path)
    assert done.code == 0, done.err
    assert {path.name for path in tmp_path.iterdir()} == files | {"run.json"}
    document = json.loads(outcome(*arguments, "--json").out)
    assert {row["points"] for row in document["results"]} == {"4-7", "12-15"}
    assert {row["mode"] for row in document["results"]} == {"mean", "noise"}


@pytest.mark.slow
def test_several_checkpoints_are_pooled_by_seed(tmp_path, outcome):
    arguments = ("ablate", *CKPT, "--ckpt", "zoo:linear-0", "--heads", "top:1", "--prompts", 64, "--classes", "linear")
    done = outcome(*arguments, "--out", tmp_path)
    assert done.code == 0, done.err
    assert "Over 2 independent seeds (2 models) top:1 costs" in done.out
    assert len(pd.read_csv(tmp_path / "pooled.csv")) == 3
    assert (tmp_path / "zoo-linear-0" / "ablation.png").exists()
    document = json.loads(outcome(*arguments, "--json").out)
    assert document["n_seeds"] == 2
    assert {row["checkpoint"] for row in document["results"]} == {"zoo:mixed-0", "zoo:linear-0"}
    effects = [row["effect"] for row in document["results"] if row["mode"] == "mean"]
    (pooled,) = [row for row in document["pooled"] if row["mode"] == "mean"]
    assert pooled["effect"] == pytest.approx(sum(effects) / 2)


def test_json_has_null_where_there_is_no_number(outcome):
    arguments = ("ablate", "--ckpt", "zoo:mixed-0", "--heads", "layer:0", "--prompts", 16, "--mode", "mean", "--json")
    document = json.loads(outcome(*arguments, "--controls", 0, "--classes", "linear").out)
    assert document["results"][0]["p_value"] is None


def test_patch_json_is_documented_and_so_are_its_files(tmp_path, outcome):
    arguments = ("patch", *CKPT, "--site", "resid_mid", "--corrupt", "prompt", "--direction", "noise", "--examples", 2)
    arguments = (*arguments, "--classes", "linear,cubic", "--prompts", 16, "--seed", 4)
    done = outcome(*arguments, "--json", "--out", tmp_path)
    assert done.code == 0, done.err
    document = json.loads(done.out)
    about = {"checkpoint": "zoo:mixed-0", "step": 3000, "seed": 4, "prompts": 16, "site": "resid_mid"}
    about |= {"corrupt": "prompt", "direction": "noise"}
    assert {key: document[key] for key in about} == about
    assert set(document) - set(about) == {"verdict", "ends", "results", "run"}
    rows = document["results"]
    assert [*rows[0]] == PATCH_ROW
    assert [(row["function_class"], row["layer"], row["tokens"]) for row in rows] == [
        (name, layer, token)
        for name in ("linear", "cubic")
        for layer in range(3)
        for token in ("x0", "y0", "x1", "y1", "x2")
    ]
    assert [*document["ends"][0]] == ["function_class", "nmse_clean", "nmse_corrupt", "nmse_no_context", "gap"]
    assert [text.split(" (")[0] for text in document["verdict"]] == ["On linear", "On cubic"]
    files = {"patching.csv", "patching_baseline_errors.csv", "patching.png", "run.json"}
    assert {path.name for path in tmp_path.iterdir()} == files
    table = pd.read_csv(tmp_path / "patching.csv", keep_default_na=False)
    assert [*table.columns] == PATCH_ROW
    np.testing.assert_allclose(table["effect"], [row["effect"] for row in rows], rtol=1e-6)
    assert len(pd.read_csv(tmp_path / "patching_baseline_errors.csv")) == 2
    assert (tmp_path / "patching.png").stat().st_size > 10_000


PATCH_ROW = ["function_class", "corrupt", "direction", "site", "layer", "heads", "tokens"]
PATCH_ROW += ["effect", "ci_low", "ci_high", "nmse", "nmse_low", "nmse_high"]
PATCH_ROW += [f"{metric}{end}" for metric in METRIC_NAMES[2:] for end in ("", "_low", "_high")]
PATCH_ROW += ["changed", "note"]


def test_patch_prints_the_strongest_places_and_a_sentence(tmp_path, outcome):
    arguments = ("patch", *CKPT, "--site", "v", "--heads", "top:1", "--tokens", "each", "--metric", "nmse")
    arguments = (*arguments, "--examples", 2, "--corrupt", "inputs")
    done = outcome(*arguments, "--classes", "linear", "--prompts", 16, "--out", tmp_path)
    assert done.code == 0, done.err
    text = " ".join(done.out.split())
    assert "zoo:mixed-0, step 3000: v patched" in text
    assert "linear: v of 0.1 at x0" in text
    assert "the 5 strongest of 5" in text
    assert "On linear (corrupt: inputs)" in text
    assert "column changed" in text  # the query is the same in both runs, and its values too
    assert (tmp_path / "patching.png").exists()


def test_path_json_is_documented_and_so_are_its_files(tmp_path, outcome):
    arguments = ("path", *CKPT, "--from", "0.1,0.mlp", "--to", "each", "--classes", "linear", "--prompts", 16)
    done = outcome(*arguments, "--examples", 3, "--json", "--out", tmp_path)
    assert done.code == 0, done.err
    document = json.loads(done.out)
    about = {"checkpoint": "zoo:mixed-0", "step": 3000, "seed": 0, "prompts": 16}
    about |= {"corrupt": "prompt", "direction": "noise"}
    assert {key: document[key] for key in about} == about
    assert set(document) - set(about) == {"verdict", "ends", "composition", "results", "run"}
    rows = document["results"]
    assert [*rows[0]] == PATH_ROW
    assert {row["sender"] for row in rows} == {"0.mlp,0.1"}
    receivers = [f"{layer}.{head}.{kind}" for layer in (1, 2) for head in range(8) for kind in "qkv"]
    assert {row["receiver"] for row in rows} == {*receivers, "all", "0.mlp", "1.mlp", "2.mlp", "out"}
    assert rows[0]["receiver"] == "all"
    assert rows[0]["share"] == 1
    assert {row["receiver"] for row in document["composition"]} == {*receivers}
    assert [*document["composition"][0]] == ["sender", "receiver", "score", "chance", "p_value"]
    assert {path.name for path in tmp_path.iterdir()} == {
        "paths.csv", "paths_baseline_errors.csv", "composition.csv", "paths.png", "run.json",
    }  # fmt: skip
    table = pd.read_csv(tmp_path / "paths.csv")
    assert [*table.columns] == PATH_ROW
    np.testing.assert_allclose(table["effect"], [row["effect"] for row in rows], rtol=1e-6)
    assert (tmp_path / "paths.png").stat().st_size > 10_000


PATH_ROW = ["function_class", "corrupt", "direction", "sender", "receiver", "effect", "ci_low", "ci_high"]
PATH_ROW += ["share", "share_low", "share_high", "nmse", "nmse_low", "nmse_high"]


def test_path_prints_the_whole_effect_first(tmp_path, outcome):
    """Also from the read-in, of which no weights can be compared, to inputs together."""
    arguments = ("path", *CKPT, "--classes", "linear", "--prompts", 16, "--examples", 3)
    done = outcome(*arguments, "--from", "embed", "--to", "0.1,out", "--out", tmp_path)
    assert done.code == 0, done.err
    lines = [line for line in done.out.splitlines() if "linear: embed to" in line]
    assert [line.split("│")[1].strip() for line in lines] == [
        "linear: embed to all",
        "linear: embed to 0.1.q,0.1.k,0.1.v,out",
    ]
    assert "1.000 [1.000, 1.000]" in lines[0]
    files = {"paths.csv", "paths_baseline_errors.csv", "paths.png", "run.json"}
    assert {path.name for path in tmp_path.iterdir()} == files


def test_runs_that_hold_the_same_are_a_failed_self_check(outcome):
    """The same inputs under another function: nothing before the first y differs."""
    done = outcome(
        "patch", *CKPT, "--site", "resid_pre", "--tokens", "x:0", "--classes", "linear", "--prompts", 16, "--json"
    )
    assert done.code == 1
    assert done.out == ""
    assert done.err == (
        "interp: self-check: clean and corrupt prompts give the same resid_pre wherever it is patched\n"
    )


@pytest.mark.slow
def test_study_writes_tables_figures_and_a_summary(tmp_path, outcome):
    done = outcome(
        "study", "retrospective", "--ckpt", "zoo:mixed-0", "--prompts", 64, "--controls", 2, "--out", tmp_path
    )
    assert done.code == 0, done.err
    tables = {path.name for path in tmp_path.glob("*.csv")}
    assert tables == {"error_curves.csv", "scores.csv", "ablation.csv", "ablation_null.csv", "ablation_curves.csv"}
    assert len(list(tmp_path.glob("*.png"))) == 4
    sentences = [line for line in done.out.splitlines() if line.startswith("- ")]
    assert all(sentence in (tmp_path / "summary.md").read_text() for sentence in sentences)
    assert "0.1" in sentences[0]


@pytest.mark.slow
def test_study_of_a_model_without_such_heads_says_so(tmp_path, outcome):
    done = outcome("study", "retrospective", "--ckpt", "zoo:cubic-0", "--prompts", 64, "--out", tmp_path)
    assert done.code == 0, done.err
    assert "No head scores above 0.5" in done.out
    assert not (tmp_path / "ablation.csv").exists()


@pytest.mark.slow
def test_study_published_writes_tables_and_a_figure_and_says_where_models_agree(tmp_path, outcome):
    arguments = ("study", "published", "--ckpt", "zoo:mixed-0", "--ckpt", "zoo:cubic-0", "--prompts", 16)
    done = outcome(*arguments, "--out", tmp_path)
    assert done.code == 0, done.err
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"published.csv", "published_likeness.csv", "published.png", "summary.md", "run.json"}
    document = json.loads(outcome(*arguments, "--json").out)
    text = " ".join(done.out.split())
    assert all(f"- {sentence}" in text for sentence in document["verdict"])
    assert len(document["results"]) == len(pd.read_csv(tmp_path / "published.csv")) == 24


def test_zoo_list_and_path(outcome):
    names = [entry["name"] for entry in json.loads(outcome("zoo", "list", "--json").out)["zoo"]]
    assert names == zoo_names()
    assert outcome("zoo", "path", "mixed-0").out.strip() == str(zoo_path("mixed-0"))


CKPT = ("--ckpt", "zoo:mixed-0")


@pytest.mark.sample(15)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("score", "--ckpt", "nowhere"), "no checkpoint directory 'nowhere' (shipped as zoo:NAME: cubic-0 to cubic-4"),
        (("score", "--ckpt", "zoo:none"), "unknown zoo checkpoint 'none' (valid: cubic-0"),
        (("score", "--ckpt", "zoo:mixed-0@7"), "unknown step '7' (valid: 70, 117"),
        (("score", "--ckpt", "zoo:mixed-0@last"), "'last' is not a step"),
        (("score", "--ckpt", "."), "is not a checkpoint: it has no config.json"),
        (("score",), "Missing option '--ckpt'"),
        (("score", *CKPT, "--classes", "linear,sine"), "unknown function class 'sine' (valid: linear, quadratic"),
        (("score", *CKPT, "--classes", "linear,linear"), "a class is named twice"),
        (("score", *CKPT, "--score", "induction"), "unknown score 'induction' (valid: retrospective, paper"),
        (("score", *CKPT, "--score", "all,self", "--out", "x"), "unknown score 'all'"),
        (("score", *CKPT, "--score", "self,self"), "--score self,self: self is named twice"),
        (("score", *CKPT, "--score", "self,"), "--score 'self,': a name is empty"),
        (
            ("score", *CKPT, "--weighting", "norm", "--out", "x"),
            "unknown --weighting 'norm' (valid: pattern, value, derivative)",
        ),
        (("score", *CKPT, "--points", "3-1"), "'3-1' is not a range A-B of pairs counted from 0 (for example 0-3)"),
        (("score", *CKPT, "--points", "0-3,4-16", "--out", "x"), "--points 4-16: these prompts have pairs 0-15"),
        (
            ("score", *CKPT, "--points", "0", "--score", "lookup", "--out", "x"),
            "has no query there (it starts at pair 1)",
        ),
        (("score", *CKPT, "--points", "0-3", "--score", "paper"), "score paper reads the first 6 pairs: it takes no"),
        (("score", *CKPT, "--shift", "none,beyond:3", "--out", "x"), "'beyond:3' changes only the query, and a score"),
        (("score", *CKPT, "--shift", "tilt"), "unknown shift 'tilt' (valid: none, scale_x"),
        (("score", *CKPT, "--inputs", "gaussian,normal", "--out", "x"), "unknown input distribution 'normal'"),
        (("score", *CKPT, "--top", 0), "'--top': 0 (a whole number of at least 1 is needed)"),
        (("score", *CKPT, *CKPT, "--out", "x"), "--ckpt zoo:mixed-0 is named twice"),
        (("score", *CKPT, "--prompts", 0), "'--prompts': 0 (a whole number of at least 2 is needed)"),
        (("score", *CKPT, "--prompts", "many"), "'--prompts': many (a whole"),
        (
            ("score", *CKPT, "--seed", 2**63),
            "'--seed': 9223372036854775808 (a whole number of at least 0 is needed, of at",
        ),
        (("score", *CKPT, "--seed", -1), "'--seed': -1 (a whole number of at least 0"),
        (("score", *CKPT, "--device", "tpu"), "--device tpu: not available here (valid: cpu"),
        (("score", *CKPT, "--bogus"), "No such option: --bogus"),
        (("score", *CKPT, "--score", "induction", "--out", "x"), "unknown score 'induction'"),
        (("ablate", *CKPT, "--heads", "9.0", "--out", "x"), "there is no head 9.0"),
        (("ablate", *CKPT, "--heads", "0.1", "--mode", "median", "--out", "x"), "unknown --mode 'median'"),
        (("eval", *CKPT, "--units", "miles"), "unknown units 'miles' (valid: nmse, paper)"),
        (("ablate", *CKPT, "--heads", "9.0"), "there is no head 9.0; this model has layers 0-2 with heads 0-7"),
        (("ablate", *CKPT, "--heads", "banana"), "'banana' is not a head (valid: LAYER.HEAD such as 0.3"),
        (
            ("ablate", *CKPT, "--heads", "0.1", "--mode", "median"),
            "unknown --mode 'median' (valid: zero, mean, mean:global, mean:parity, resample",
        ),
        (("ablate", *CKPT, "--heads", "0.1", "--controls", -1), "'--controls': -1 (a whole"),
        (("ablate", *CKPT), "Missing option '--heads'"),
        (("ablate", *CKPT, "--heads", "0.1", "--design", "swap"), "unknown --design 'swap' (valid: remove, keep"),
        (("ablate", *CKPT, "--heads", "0.1", "--site", "k"), "unknown --site 'k' (valid: z, pattern, value)"),
        (("ablate", *CKPT, "--heads", "0.1", "--tokens", "q"), "--tokens 'q' is not valid (all, x, y"),
        (("ablate", *CKPT, "--heads", "0.1", "--memory", 0), "--memory 0.0: a number above 0"),
        (("ablate", *CKPT, "--heads", "3.mlp"), "there is no head 3.mlp; this model has layers 0-2"),
        (("ablate", *CKPT, "--heads", "0.1", "--design", "pairs"), "needs at least two heads (given: 0.1)"),
        (("ablate", *CKPT, "--heads", "0.1", "--design", "pairs", "--out", "x"), "needs at least two heads"),
        (("ablate", *CKPT, "--heads", "mlps", "--design", "cumulative", "--out", "x"), "which MLPs do not have"),
        (("ablate", *CKPT, "--heads", "mlps", "--design", "keep", "--out", "x"), "--design keep takes heads only"),
        (("ablate", *CKPT, "--heads", "0.1", "--mode", "zero,zero"), "--mode zero,zero: zero is named twice"),
        (("ablate", *CKPT, "--heads", "0.1", "--tokens", "y:15", "--out", "x"), "y:15: no prediction reads the y of"),
        (("ablate", *CKPT, "--heads", "0.1", "--memory", "inf"), "--memory inf: a number above 0"),
        (("ablate", *CKPT, *CKPT, "--heads", "0.1"), "--ckpt zoo:mixed-0 is named twice"),
        (("patch", *CKPT, "--site", "result", "--out", "x"), "unknown --site 'result' (valid: resid_pre, resid_mid"),
        (("patch", *CKPT, "--corrupt", "swap", "--out", "x"), "unknown --corrupt 'swap' (valid: function, inputs"),
        (("patch", *CKPT, "--corrupt", "pair:99", "--out", "x"), "--corrupt pair:99: these prompts have examples 0-14"),
        (("patch", *CKPT, "--corrupt", "permuted:2", "--out", "x"), "only pair:J takes an argument"),
        (("patch", *CKPT, "--direction", "both", "--out", "x"), "unknown --direction 'both' (valid: denoise, noise)"),
        (("patch", *CKPT, "--metric", "loss", "--out", "x"), "unknown --metric 'loss' (valid: effect, nmse, distance"),
        (
            ("patch", *CKPT, "--heads", "3.0", "--out", "x"),
            "there is no head 3.0; this model has layers 0-2 with heads",
        ),
        (("patch", *CKPT, "--heads", "mlps", "--out", "x"), "an MLP is patched with --site mlp_out"),
        (
            ("patch", *CKPT, "--heads", "top:25", "--out", "x"),
            "--heads top:25: this model has 24 heads, so K is 1 to 24",
        ),
        (("patch", *CKPT, "--heads", "0.1", "--site", "mlp_out", "--out", "x"), "the site mlp_out has no heads"),
        (("patch", *CKPT, "--tokens", "z", "--out", "x"), "--tokens 'z' is not valid (all, each, query, x, y, or A-B"),
        (("patch", *CKPT, "--tokens", "12-16", "--out", "x"), "--tokens 12-16: these prompts have pairs 0-15"),
        (("patch", *CKPT, "--tokens", "4", "--examples", 3, "--out", "x"), "--tokens 4: these prompts have pairs 0-3"),
        (("patch", *CKPT, "--tokens", "y:15", "--out", "x"), "y:15: no prediction reads the y of the query (pair 15)"),
        (("patch", *CKPT, "--examples", 16, "--out", "x"), "this run's prompts have 1 to 15 examples before a query"),
        (("patch", *CKPT, "--examples", 0, "--out", "x"), "'--examples': 0 (a whole number of at least 1 is needed)"),
        (
            ("patch", *CKPT, "--classes", "linear,prototypes", "--corrupt", "inputs", "--out", "x"),
            "prototypes is not a function of x alone, so its query cannot be asked after other examples",
        ),
        (("path", *CKPT, "--from", "3.0", "--out", "x"), "there is no head 3.0"),
        (("path", *CKPT, "--from", "read_in", "--out", "x"), "'read_in' is not a head"),
        (("path", *CKPT, "--to", "3.1.q", "--out", "x"), "--to 3.1.q: there is no input '3.1.q' (valid: LAYER.HEAD.q"),
        (("path", *CKPT, "--to", "1.2.z", "--out", "x"), "there is no input '1.2.z'"),
        (("path", *CKPT, "--to", "1.2,1.2.k", "--out", "x"), "--to 1.2,1.2.k: an input is named twice"),
        (
            ("path", *CKPT, "--from", "1.2", "--to", "0.1.v,out", "--out", "x"),
            "no such path: nothing in --to reads what 1.2 writes",
        ),
        (("path", *CKPT, "--corrupt", "swap", "--out", "x"), "unknown --corrupt 'swap'"),
        (("path", *CKPT, "--direction", "up", "--out", "x"), "unknown --direction 'up' (valid: denoise, noise)"),
        (("path", *CKPT, "--classes", "markov_chain", "--out", "x"), "markov_chain is not a function of x"),
        (("study", "published", *CKPT, *CKPT, "--out", "x"), "is named twice"),
        (("train", "--out", "x", "--curriculum", "spiral"), "unknown curriculum 'spiral' (valid: mixed, sequential"),
        (("train", "--out", "x", "--curriculum", "single:sine"), "unknown function class 'sine'"),
        (("train", "--out", "x", "--preset", "huge"), "unknown preset 'huge' (valid: paper, small, tiny)"),
        (
            ("train", "--out", "x", "--set", "recipe.speed=9"),
            "unknown --set key 'recipe.speed' (valid: seeds.init, seeds.data, seeds.task, model.n_layers",
        ),
        (("train", "--out", "x", "--set", "recipe.lr=fast"), "recipe.lr='fast': a number is needed"),
        (("train", "--out", "x", "--set", "recipe.steps=2.5"), "recipe.steps=2.5: a whole number is needed"),
        (("train", "--out", "x", "--set", "recipe.lr=-1"), "recipe.lr=-1.0: must be above 0"),
        (("train", "--out", "x", "--set", "lr"), "not of the form section.key=value"),
        (("train", "--out", "x", "--set", "model.n_heads=5"), "model.d_model=64 is not a multiple of model.n_heads=5"),
        (("train", "--out", "x", "--set", "data.n_points=99"), "data.n_points=99 needs model.n_ctx >= 198"),
        (("train", "--out", "x", "--set", "data.classes=linear,sine"), "unknown function class 'sine'"),
        (("train", "--out", "x", "--set", "data.classes=linear,linear"), "linear is named twice"),
        (("study", "retrospective", "--ckpt", "nowhere"), "no checkpoint directory 'nowhere'"),
        (("juggle",), "No such command 'juggle'"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_wrong_input_is_one_line_and_exit_2(arguments, message, tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    assert message in refused(*arguments)
    assert not list(tmp_path.iterdir()), "a refused command left something behind"


@pytest.fixture
def broken(tmp_path):
    """A copy of a good checkpoint, to be damaged."""
    directory = tmp_path / "broken"
    shutil.copytree(zoo_path("mixed-0"), directory)
    return directory


def test_a_truncated_weights_file_is_refused(broken, refused):
    path = broken / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "model.safetensors is damaged" in refused("score", "--ckpt", broken)
    path.write_bytes(b"")
    assert "model.safetensors is damaged" in refused("score", "--ckpt", broken)
    path.unlink()
    assert "no weights at" in refused("score", "--ckpt", broken)


def test_weights_of_another_model_are_refused(broken, run_dir, refused):
    shutil.copy(run_dir / "model.safetensors", broken)
    assert "does not fit config.json" in refused("score", "--ckpt", broken)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text[: len(text) // 2], "config.json is damaged"),
        (lambda _: "[]", "is damaged: it has no table 'run'"),
        (lambda text: text.replace('"format_version": 2', '"format_version": 1'), "convert it with `interp upgrade"),
        (
            lambda text: text.replace('"format_version": 2', '"format_version": 3'),
            "has format version 3; this",
        ),
        (lambda text: text.replace('"n_layers": 3', '"n_layers": "three"'), "model.n_layers='three': a whole number"),
        (lambda text: text.replace('"n_layers": 3', '"depth": 3'), "unknown configuration key 'model.depth'"),
    ],
)
def test_a_damaged_config_is_refused(broken, edit, message, refused):
    path = broken / "config.json"
    path.write_text(edit(path.read_text()))
    assert message in refused("score", "--ckpt", broken)


def test_weights_that_are_not_finite_are_refused(broken, refused):
    import torch

    from training.checkpoints.checkpoint import write_weights

    checkpoint = load(broken)
    checkpoint.model.unembed.b_U.fill_(torch.nan)
    write_weights(broken / "model.safetensors", checkpoint.model, 3000)
    assert "unembed.b_U holds values that are not finite" in refused("score", "--ckpt", broken)


def test_what_is_no_checkpoint_is_called_what_it_is(tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    for name in ("lm.py", "weights"):
        (tmp_path / name).write_text("")
    assert "models in a file are opened by score, ablate, patch and report only" in refused("lens", "--ckpt", "lm.py:m")
    assert "name one of its models, as in lm.py:NAME" in refused("lens", "--ckpt", "lm.py")
    assert "weights is a file: a run directory is needed" in refused("score", "--ckpt", "weights")
    assert "the name of a checkpoint is empty" in refused("lens", "--ckpt", "")
    assert "Missing option '--ckpt': A run directory, DIR@STEP for a snapshot" in refused("lens")


def test_what_a_fresh_user_tried_is_refused(tmp_path, quick_settings, refused):
    mlp = refused("ablate", *CKPT, "--heads", "0.mlp", "--site", "pattern", "--classes", "linear", "--prompts", 16)
    assert "0.mlp has no attention pattern" in mlp
    assert "exclude each other" in refused("train", "--out", tmp_path / "new", *quick_settings, "--resume", "--force")
    assert not (tmp_path / "new").exists()
    unknown = refused("train", "--out", tmp_path / "new", "--set", "recipe.stepz=3")
    assert "did you mean 'recipe.steps'? (valid: those that `interp train --keys` lists)" in unknown


def test_the_caption_counts_the_classes_that_p_is_adjusted_over(outcome):
    """On 64 prompts cubic has no certain gain, hence no p."""
    given = ("ablate", *CKPT, "--heads", "0.1", "--mode", "mean", "--prompts", 64, "--controls", 3)
    document = json.loads(outcome(*given, "--json").out)
    n_classes = len({row["function_class"] for row in document["results"] if row["p_value"] is not None})
    assert n_classes == 2
    assert "p adjusted over 2 function classes (Holm)" in " ".join(outcome(*given).out.split())


def test_an_output_directory_that_cannot_be_written_is_refused(tmp_path, quick_settings, refused):
    (tmp_path / "file").write_text("")
    under_a_file = tmp_path / "file" / "results"
    assert "cannot write to" in refused("score", *CKPT, "--out", under_a_file)
    assert "cannot write to" in refused("train", "--out", under_a_file, *quick_settings)
    assert "is a file" in refused("train", "--out", tmp_path / "file", *quick_settings)


def test_a_run_is_never_overwritten_unasked(run_dir, tmp_path, quick_settings, refused, outcome):
    copy = tmp_path / "copy"
    shutil.copytree(run_dir, copy)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert "already holds a run: go on with --resume or overwrite it with --force" in refused(
        "train", "--out", copy, *quick_settings
    )
    message = refused("train", "--out", copy, *quick_settings, "--seed", 1, "--resume")
    assert "holds a run with another seeds.data, seeds.init, seeds.task" in message
    assert "exclude each other" in refused("train", "--out", copy, *quick_settings, "--resume", "--force")
    for wrong in (["--device", "tpu"], ["--set", "recipe.lr=fast"], ["--curriculum", "spiral"], ["--seed", "x"]):
        refused("train", "--out", copy, *quick_settings, "--force", *wrong)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before

    assert "is finished" in outcome("train", "--out", copy, *quick_settings, "--resume").err
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before
    done = outcome("train", "--out", copy, *quick_settings, "--seed", 1, "--force")
    assert done.code == 0, done.err
    assert (copy / "model.safetensors").read_bytes() != before[copy / "model.safetensors"]


def test_files_that_are_not_a_run_are_never_deleted(tmp_path, quick_settings, refused):
    (tmp_path / "thesis.tex").write_text("years of work")
    assert "holds files that are not a run" in refused("train", "--out", tmp_path, *quick_settings, "--force")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_an_interrupted_command_says_what_was_kept(tmp_path, quick_settings, outcome, monkeypatch):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.common.output.print_json", interrupt)
    done = outcome("classes", "--json")
    assert (done.code, done.out) == (130, "")
    assert done.err == "interp: interrupted: a file that it writes is complete or was not written\n"

    monkeypatch.setattr(Interruption, "__enter__", lambda stop: setattr(stop, "requested", True) or stop)
    done = outcome("train", "--out", tmp_path / "run", *quick_settings)
    assert done.code == 130
    assert f"1 of 60 steps are saved in {tmp_path / 'run'}; the same command with --resume goes on" in done.err
    monkeypatch.undo()
    assert outcome("train", "--out", tmp_path / "run", *quick_settings, "--resume").err.count("resumed at step 1") == 1


def test_quiet_leaves_results_and_errors_and_verbose_adds_the_traceback(tmp_path, outcome, monkeypatch):
    given = ("score", "--ckpt", "zoo:mixed-0", "--classes", "linear", "--prompts", 8, "--out", tmp_path)
    loud = outcome(*given)
    assert loud.err == f"wrote {tmp_path}/\n"
    monkeypatch.setenv("TQDM_DISABLE", "0")  # restored afterwards
    monkeypatch.setattr("training.common.terminal.notes_are_printed", True)
    quiet = outcome("-q", *given)
    assert quiet.err == ""
    assert quiet.out == loud.out == outcome(*given, "--quiet").out
    refused = outcome("score", "--ckpt", "nothing", "-q", "-v")
    assert refused.code == 2
    assert refused.err.startswith("Traceback")
    assert refused.err.splitlines()[-1].startswith("interp: ")


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_the_run_resumes(tmp_path, quick_settings):
    out = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "interp",
        "train",
        "--out",
        str(out),
        *quick_settings,
        "--set",
        "recipe.steps=5000",
    ]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not (out / "resume" / "state.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130


def test_a_failed_self_check_is_exit_1(outcome, monkeypatch):
    """A removal that leaves the head's z as it was although its replacement differs from it."""
    from interp.model import self_checks

    edits = self_checks.plain_edits
    monkeypatch.setattr(self_checks, "plain_edits", lambda *given: dict.fromkeys(edits(*given), lambda values: values))
    given = ("--mode", "zero", "--classes", "linear", "--prompts", 16, "--controls", 0)
    done = outcome("ablate", "--ckpt", "zoo:mixed-0", "--heads", "0.2", *given, "--json")
    assert done.code == 1
    assert done.out == ""
    assert done.err == "interp: self-check: zero ablation leaves what head 0.2 writes (z) as it was\n"


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (("lens", "--ckpt", "zoo:linear-0", "--ckpt", "zoo:linear-1"), "--ckpt"),
        (("ablate", "--ckpt", "zoo:linear-0", "--heads", "0.1", "--heads=0.2"), "--heads"),
        (("eval", "--ckpt", "zoo:linear-0", "--classes", "linear", "--classes", "cubic"), "--classes"),
        (("study", "cause", "--ckpt", "zoo:linear-0", "--seed", "1", "--seed", "2"), "--seed"),
        (("train", "--out", "x", "--set", "recipe.lr=1", "--set", "recipe.lr=2"), "--set recipe.lr"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_option_that_takes_one_value_is_not_given_twice(refused, command, option):
    assert refused(*command) == f"interp: {option} is given 2 times: give it once\n"


def test_help_prints_brackets_and_no_python_types(outcome):
    assert "  [[analyse]]\n" in re.sub(" +\n", "\n", outcome("sweep", "--help").out)
    for command in ("ablate", "train", "eval"):
        assert not re.search(r"<\w+>", outcome(command, "--help").out)
