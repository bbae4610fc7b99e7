import copy
import pickle

import pytest
import torch

from interp import hooked
from training.checkpoints.checkpoint import load


def test_a_zoo_name_gives_a_hooked_transformer_that_takes_prompts():
    from transformer_lens import HookedTransformer

    model = hooked("zoo:mixed-0")
    prompt = torch.randn(3, 32, 4, generator=torch.Generator().manual_seed(0))
    _, cache = model.run_with_cache(prompt)
    logits = model(prompt)
    assert isinstance(model, HookedTransformer)
    assert logits.shape == (3, 32, 1)
    assert cache["blocks.1.attn.hook_pattern"].shape == (3, 8, 32, 32)
    torch.testing.assert_close(logits[..., 0], load("zoo:mixed-0").model(prompt), rtol=1e-5, atol=1e-5)


def test_starting_from_a_layer_works_as_in_transformer_lens():
    model = hooked("zoo:mixed-0")
    prompt = torch.randn(2, 32, 4, generator=torch.Generator().manual_seed(0))
    _, cache = model.run_with_cache(prompt)
    torch.testing.assert_close(model(cache["blocks.1.hook_resid_pre"], start_at_layer=1), model(prompt))


def reloaded(model):
    twin = hooked("zoo:mixed-1")
    twin.load_state_dict(model.state_dict())
    return twin


def with_setting(name):
    def change(model):
        getattr(model, name)(True)
        return model

    return change


def processed(**options):
    def change(model):
        model.process_weights_(**options)
        return model

    return change


CHANGES = {
    "process_weights_": processed(),
    "process_weights_, refactored": processed(refactor_factored_attn_matrices=True),
    "process_weights_, no LayerNorm folded": processed(fold_ln=False),
    "process_weights_ twice": lambda model: processed()(processed()(model)),
    "center_unembed": lambda model: reloaded_with(model, model.center_unembed(model.state_dict())),
    "set_use_attn_result": with_setting("set_use_attn_result"),
    "set_use_split_qkv_input": with_setting("set_use_split_qkv_input"),
    "set_use_attn_in": with_setting("set_use_attn_in"),
    "set_use_hook_mlp_in": with_setting("set_use_hook_mlp_in"),
    "float64": lambda model: model.to(torch.float64),
    "cpu": lambda model: model.cpu().to("cpu"),
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "state dict": reloaded,
    "train and eval": lambda model: model.train().eval(),
}


def reloaded_with(model, state_dict):
    model.load_state_dict(state_dict)
    return model


QUICK = ("process_weights_", "set_use_attn_result", "float64", "deepcopy")


@pytest.mark.parametrize(
    "change", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in CHANGES]
)
def test_what_transformer_lens_users_do_changes_no_prediction(change):
    prompt = torch.randn(2, 32, 4, generator=torch.Generator().manual_seed(0))
    model = CHANGES[change](hooked("zoo:mixed-0"))
    predicted, _ = model.run_with_cache(prompt.to(model.W_E.dtype))
    torch.testing.assert_close(predicted.float(), hooked("zoo:mixed-0")(prompt), rtol=1e-4, atol=1e-4)
