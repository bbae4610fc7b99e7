import subprocess
import sys

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


def test_hooked_stays_a_function_after_its_module_was_imported():
    code = "import interp.hooked; from interp.model.hooked_transformer import hooked as a; from interp import hooked as b; assert a is b"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_starting_from_a_layer_works_as_in_transformer_lens():
    model = hooked("zoo:mixed-0")
    prompt = torch.randn(2, 32, 4, generator=torch.Generator().manual_seed(0))
    _, cache = model.run_with_cache(prompt)
    torch.testing.assert_close(model(cache["blocks.1.hook_resid_pre"], start_at_layer=1), model(prompt))
