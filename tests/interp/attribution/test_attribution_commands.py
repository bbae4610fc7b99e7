"""`interp attribute` and `interp circuit` as their users meet them, in this process."""

import json

import pandas as pd
import pytest

from interp import names
from interp.attribution import edges, nodes
from training import options

QUICK = ("--ckpt", "zoo:mixed-0", "--classes", "linear", "--prompts", "16", "--examples", "4")


def test_the_names_in_the_help_are_the_methods():
    in_help = list(names.NODE_METHOD_NAMES), list(names.EDGE_METHOD_NAMES)
    assert in_help == (["exact", *nodes.METHODS], ["exact", *edges.METHODS])


@pytest.mark.slow
def test_attribute_prints_one_document_and_writes_tables_and_figures(outcome, tmp_path):
    code, out, err = outcome("attribute", *QUICK, "--method", "exact,gradient,atp", "--json", "--out", tmp_path)
    assert code == 0, err
    document = json.loads(out)
    assert (document["of"], document["corrupt"], document["prompts"]) == ("z", "function", 16)
    assert len(document["results"]) == 3 * 24
    assert [row["method"] for row in document["receipts"]] == ["gradient", "atp"]
    assert {row["n_prompts"] for row in document["receipts"]} == {16}  # no more than were asked for
    rows = pd.read_csv(tmp_path / "attribution.csv")
    assert [*rows.columns] == [*document["results"][0]]
    assert len(pd.read_csv(tmp_path / "validation_pairs.csv")) == 2 * 24
    for name in ("attribution.png", "validation.png"):
        assert (tmp_path / name).stat().st_size > 10_000


def test_the_validation_compares_with_what_exact_finds(outcome):
    _, out, _ = outcome("attribute", *QUICK, "--method", "exact,ig", "--json")
    document = json.loads(out)
    effects = {
        method: {row["heads"]: row["effect"] for row in document["results"] if row["method"] == method}
        for method in ("exact", "ig")
    }
    (receipt,) = document["receipts"]
    worst = max(effects["exact"], key=lambda head: abs(effects["exact"][head] - effects["ig"][head]))
    assert receipt["worst"] == f"z of {worst}"
    assert receipt["worst_exact"] == pytest.approx(effects["exact"][worst])
    assert receipt["worst_approximate"] == pytest.approx(effects["ig"][worst])


def test_attribute_prints_the_strongest_and_the_validation(outcome):
    code, out, _ = outcome("attribute", *QUICK, "--method", "gradient", "--top", 3)
    assert code == 0
    assert out.count("linear: z of") == 3
    assert "validation: estimated against exact effects" in out
    assert "worst estimate" in out


def test_edges_without_a_validation(outcome):
    code, out, _ = outcome("attribute", *QUICK, "--edges", "--method", "eap", "--validate", 0)
    assert code == 0
    assert "linear: embed->" in out
    assert "validation" not in out


def test_old_names_of_options_work_and_say_so(outcome):
    arguments = ("attribute", *QUICK, "--method", "gradient", "--site", "z", "--json")
    new = outcome(*arguments, "--tokens", "y", "--validate", 0)
    options.current_option_name.cache_clear()  # a former name is reported once
    old = outcome(*arguments, "--at=y", "--no-receipt")
    assert old.code == 0
    first, second = (json.loads(done.out) for done in (old, new))
    assert first.pop("run")["command"].endswith("--at=y --no-receipt")
    assert second.pop("run")["command"].endswith("--tokens y --validate 0")
    assert first == second
    assert new.err == ""
    assert old.err.splitlines() == ["--at is now called --tokens", "--no-receipt is now called --validate 0"]
    assert not {"--at", "--no-receipt", "--receipt"} & set(outcome("attribute", "--help").out.split())


@pytest.mark.slow
def test_circuit_prints_one_document_and_writes_tables_and_figures(outcome, tmp_path):
    arguments = ("--method", "eap", "--sizes", "100,800", "--random", 2, "--json", "--out", tmp_path)
    code, out, err = outcome("circuit", *QUICK, *arguments)
    assert code == 0, err
    document = json.loads(out)
    smallest = document["smallest"]["linear"]
    assert smallest["faithfulness"] >= document["faithful"] == 0.9
    assert len(document["edges"]["linear"]) == smallest["n_edges"]
    assert document["verdict"][0].startswith(f"On linear (corrupt: prompt) {smallest['n_edges']} of 802 edges carry")
    assert {row["n_best"] for row in document["results"]} >= {100, 800}
    assert len(pd.read_csv(tmp_path / "circuit_edges.csv")) == 802
    for name in ("circuit.png", "circuit_curves.png"):
        assert (tmp_path / name).stat().st_size > 10_000


def test_a_circuit_that_is_not_found_is_told(outcome):
    code, out, _ = outcome("circuit", *QUICK, "--method", "eap", "--sizes", "30", "--random", 0)
    assert code == 0
    assert "no circuit of the requested sizes reaches a faithfulness of 0.9" in out


@pytest.mark.slow
def test_circuits_without_an_edge_on_a_path_are_drawn(outcome, tmp_path):
    options = ("--method", "eap", "--sizes", "5", "--random", 1, "--out", tmp_path)
    code, out, err = outcome("circuit", "--ckpt", "zoo:mixed-0", "--classes", "linear", "--prompts", 8, *options)
    assert code == 0, err
    assert "no circuit of the requested sizes" in out
    assert (tmp_path / "circuit_curves.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["attribute", "--method", "eap"], "unknown --method 'eap' (valid: exact, gradient, ig, ig-activations, atp)"),
        (["attribute", "--edges", "--method", "atp"], "unknown --method 'atp' (valid: exact, eap, eap-ig)"),
        (["attribute", "--edges", "--site", "q"], "--edges has neither --site nor --tokens"),
        (["attribute", "--site", "hook_q"], "'hook_q' (valid: resid_pre"),
        (["attribute", "--corrupt", "nothing"], "unknown --corrupt 'nothing'"),
        (["attribute", "--direction", "up"], "unknown --direction 'up' (valid: denoise, noise)"),
        (["attribute", "--method", "ig", "--steps", "0"], "0 (a whole number of at least 1 is needed)"),
        (["attribute", "--validate", "1"], "1 (0 or a whole number of at least 2 is needed)"),
        (["attribute", "--tokens", "z9"], "--tokens 'z9'"),
        (["circuit", "--sizes", "5,x"], "--sizes 5,x: 'x' is not a number of edges"),
        (["circuit", "--sizes", "5000"], "--sizes 5000: this model has 802 edges"),
        (["circuit", "--min-faithfulness", "2"], "--min-faithfulness 2.0: a number above 0 and at most 1"),
        (["circuit", "--method", "ig"], "unknown --method 'ig' (valid: exact, eap, eap-ig)"),
        (["circuit", "--examples", "99"], "--examples 99"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(refused, arguments, message, tmp_path):
    command, *options = arguments
    common = QUICK[:-2] if "--examples" in options else QUICK
    assert message in refused(command, *common, *options, "--out", tmp_path / "results")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("command", ["attribute", "circuit"])
def test_the_help_has_an_example_and_every_flag_that_commands_share(outcome, command):
    code, out, _ = outcome(command, "--help")
    assert code == 0
    assert f"interp {command} --ckpt zoo:" in out
    shared = "--ckpt --classes --corrupt --direction --examples --prompts --seed --device --json --out --method"
    assert all(flag in out for flag in shared.split())
