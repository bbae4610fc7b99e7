"""What an ablation of a model without norms or MLPs says of what the model has not."""

import json

import pytest

from interp.ablation.ablate import ablate
from training.checkpoints.checkpoint import load
from training.common.errors import UserError
from training.config.parse import from_preset
from training.loop.trainer import train

BARE = ["model.norm=none", "model.d_mlp=0", "record.snapshots=0"]


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A model of attention alone, with nothing normalised."""
    directory = tmp_path_factory.mktemp("bare") / "run"
    train(from_preset("tiny", "single:linear", 0, [*BARE, "recipe.steps=5"]), directory, progress=False)
    return load(directory)


@pytest.mark.slow
def test_without_norms_no_scale_can_be_frozen(tmp_path):
    """After 300 steps such a model has begun to use its context, so that there is an effect to measure."""
    train(from_preset("tiny", "single:linear", 0, [*BARE, "recipe.steps=300"]), tmp_path / "run", progress=False)
    table = ablate(load(tmp_path / "run"), "all", "linear", modes=["zero"], n_prompts=1024, n_controls=0).table
    assert table[["effect", "direct_effect"]].notna().to_numpy().all()
    assert table[["frozen_effect", "frozen_ci_low", "frozen_ci_high"]].isna().to_numpy().all()


@pytest.mark.parametrize("heads", ["0.mlp", "mlps", "0.1,1.mlp"])
def test_an_mlp_that_is_not_there_cannot_be_removed(bare, heads):
    with pytest.raises(UserError, match="this model has no MLPs"):
        ablate(bare, heads, "linear", n_prompts=16, n_controls=0)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("patch", "--site", "mlp_out"), "--site mlp_out: this model has no MLPs"),
        (("path", "--from", "0.mlp"), "there is no component 0.mlp: this model has no MLPs"),
        (("path", "--from", "0.1", "--to", "1.mlp"), "there is no input '1.mlp'"),
        (("ablate", "--heads", "0.mlp"), "there is no component 0.mlp: this model has no MLPs"),
    ],
)
def test_commands_refuse_what_the_model_has_not(bare, outcome, command, message):
    name, *options = command
    ended = outcome(name, "--ckpt", bare.directory, "--classes", "linear", *options)
    assert ended.refused
    assert message in ended.err


def test_every_path_of_such_a_model_leads_to_heads_and_the_read_out(bare, outcome):
    ended = outcome(
        "path", "--ckpt", bare.directory, "--classes", "linear", "--from", "embed", "--prompts", 8, "--json"
    )
    rows = json.loads(ended.out)["results"]
    assert not [row for row in rows if "mlp" in row["sender"] or "mlp" in row["receiver"]]
    assert {"0.0.q", "2.7.v", "out"} <= {row["receiver"] for row in rows}
