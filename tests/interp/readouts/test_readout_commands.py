"""`interp lens` and `interp probe` as their users meet them, in this process."""

import json

import pandas as pd
import pytest

from interp.readouts.command import TARGETS as SHOWN
from interp.readouts.targets import TARGETS

QUICK = ("--classes", "linear", "--prompts", "64")
QUICK_PROBE = (*QUICK, "--fit-prompts", "128", "--examples", "7")


def test_lens_prints_one_document_and_writes_tables_and_a_figure(outcome, tmp_path):
    code, out, _ = outcome("lens", "--ckpt", "zoo:mixed-0", *QUICK, "--steps", "1,3", "--json", "--out", tmp_path)
    document = json.loads(out)
    assert code == 0
    assert (document["seed"], document["prompts"], document["fit_stream"]) == (0, 64, "reference")
    rows = pd.read_csv(tmp_path / "lens.csv")
    assert [*rows.columns] == [*document["results"][0]]
    assert len(rows) == len(document["results"]) == 7 * 2 * 7 * 16
    assert {"gradient_descent_1", "gradient_descent_3"} < set(rows["reference"])
    assert not rows.duplicated(["function_class", "stage", "kind", "reference", "examples"]).any()
    assert document["verdict"][0].startswith(
        "On linear the tuned lens first reaches half of the model's gain over the no-context optimum at 1.mid"
    )
    assert (tmp_path / "lens.png").stat().st_size > 10_000


def test_lens_prints_a_table_and_its_verdict(outcome):
    code, out, _ = outcome("lens", "--ckpt", "zoo:mixed-0", *QUICK)
    assert code == 0
    assert "lens on linear" in out
    assert "1.post tuned" in out
    assert "in squared distance / E[y²] it is closest after layer 0" in out


@pytest.mark.slow
def test_probe_prints_one_document_with_everything_that_was_asked(outcome, tmp_path):
    arguments = ("--target", "w,x", "--ablate-heads", "0.1", "--swap", "--controls", 5, "--json", "--out", tmp_path)
    code, out, err = outcome("probe", "--ckpt", "zoo:mixed-0", *QUICK_PROBE, *arguments)
    assert code == 0, err
    document = json.loads(out)
    assert document["without"] == "0.1"
    assert {row["condition"] for row in document["results"]} == {"intact", "without 0.1"}
    assert len(document["heads"]) == 24
    assert {row["target"] for row in document["swaps"]} == {"w", "x"}
    assert len(document["verdict"]) == 3
    for name in ("probes", "heads", "heads_agreement", "swaps", "swaps_controls"):
        assert len(pd.read_csv(tmp_path / f"{name}.csv"))
    for name in ("probes", "heads", "swaps", "without_w", "without_x"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000


def test_probe_without_a_swap_says_what_it_does_not_show(outcome):
    code, out, _ = outcome("probe", "--ckpt", "zoo:mixed-0", *QUICK_PROBE, "--target", "t")
    assert code == 0
    assert "does not mean that the model uses it" in out
    assert "t x 7" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("lens", "--steps", "2,0"), "--steps 2,0: '0' is not a whole number above 0"),
        (("lens", "--prompts", "4"), "at least 16"),
        (("lens", "--classes", "sine"), "unknown function class 'sine'"),
        (("probe", "--target", "weights"), "unknown --target 'weights' (valid: w, w_ls, xty, t, class, x)"),
        (("probe", "--classes", "general_quadratic", "--target", "w"), "general_quadratic has none"),
        (("probe", "--token", "z"), "unknown --token 'z' (valid: x, y)"),
        (("probe", "--examples", "16"), "1 to 15 examples"),
        (("probe", "--ablate-heads", "9.9"), "there is no head 9.9"),
        (("probe", "--ablate-heads", "each"), "one set of heads is needed"),
        (("probe", "--fit-prompts", "8"), "--fit-prompts 8: at least 16"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_input_is_refused_in_one_line(refused, arguments, said):
    command, *rest = arguments
    assert said in refused(command, "--ckpt", "zoo:linear-0", *rest).replace("--prompts 4: ", "")


def test_the_help_names_every_target():
    assert [part.strip().split(" ")[0] for part in SHOWN.split(", ")][:6] == [*TARGETS]
