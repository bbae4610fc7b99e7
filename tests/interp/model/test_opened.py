"""Every function takes a checkpoint, the name of one or an attached model, and says what else it was given."""

from copy import deepcopy
from dataclasses import replace
from inspect import signature

import pytest
import torch

import interp
from interp.model.opened import OpensModels
from training.checkpoints.checkpoint import load
from training.common.errors import CheckError, UserError

NO_ANALYSES = ("Head", "OwnPrompts", "read_prompts", "load", "hooked", "export_checkpoint", "error_curves")
FUNCTIONS = [getattr(interp, name) for name in interp.__all__ if name not in NO_ANALYSES]
TAKE_MODELS = [function for function in FUNCTIONS if next(iter(signature(function).parameters)) == "checkpoint"]


@pytest.fixture
def trained():
    checkpoint = load("zoo:linear-0")
    return replace(checkpoint, model=deepcopy(checkpoint.model))


def test_all_functions_of_a_checkpoint_are_tried():
    assert {function.__name__ for function in TAKE_MODELS} == {
        "ablate", "attribute", "attribute_edges", "circuits", "composition", "cumulative", "decode_heads",
        "head_weights", "lens", "pairs", "patch", "path_effects", "patterns", "probe", "score", "swap",
    }  # fmt: skip
    assert all(isinstance(function, OpensModels) for function in TAKE_MODELS)


@pytest.mark.parametrize("function", TAKE_MODELS, ids=lambda function: function.__name__)
@pytest.mark.parametrize("given", [3, None, ["zoo:linear-0"], torch.zeros(2)], ids=["number", "None", "list", "tensor"])
def test_what_is_no_model_is_named(function, given):
    with pytest.raises(UserError, match=rf"^{function.__name__} takes a checkpoint .*, not {type(given).__name__}$"):
        function(given)


def test_a_name_is_the_checkpoint_of_that_name(trained):
    by_name = interp.score("zoo:linear-0", "linear", n_prompts=8)
    assert by_name.table.equals(interp.score(trained, "linear", n_prompts=8).table)
    with pytest.raises(UserError, match="no checkpoint directory"):
        interp.score("nowhere", "linear")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_weights_of_another_precision_are_named(trained, dtype):
    trained.model.to(dtype)
    with pytest.raises(UserError, match=rf"zoo:linear-0: .* is {str(dtype).removeprefix('torch.')}, float32 is needed"):
        interp.score(trained, "linear", n_prompts=8)


def test_weights_that_are_not_finite_give_no_table(trained):
    trained.model.embed.W_E.data[0, 0] = torch.nan
    with pytest.raises(CheckError, match=r"zoo:linear-0: embed\.W_E has values that are not finite"):
        interp.score(trained, "linear", n_prompts=8)
