"""What other tools need of `interp.hooked`, as its docstring says."""

import pytest
import torch

from interp import hooked, load, score
from interp.model.hooked_transformer import SERIES
from training.evaluation.evaluate import evaluation_prompts

pytestmark = pytest.mark.skipif(SERIES > 3, reason="of transformer-lens 3.x")
SITES = ("attn.hook_result", "hook_q_input", "hook_k_input", "hook_v_input", "hook_mlp_in")


def test_the_hooks_of_circuit_finders_are_there_and_carry_gradients():
    checkpoint = load("zoo:mixed-0")
    model = hooked(checkpoint)
    prompt = evaluation_prompts(checkpoint.config, "linear", n_prompts=2, seed=0).tokens
    wanted = [f"blocks.1.{site}" for site in SITES]
    before = model(prompt)
    model.set_use_attn_result(True)
    model.set_use_split_qkv_input(True)
    model.set_use_hook_mlp_in(True)
    model.requires_grad_(True)
    gradients: dict[str, torch.Tensor] = {}

    def keep(gradient, hook):
        gradients[hook.name] = gradient

    with model.hooks(bwd_hooks=[(name, keep) for name in wanted]):
        after = model(prompt)
        after.square().sum().backward()
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)
    assert all(gradients[name].abs().sum() > 0 for name in wanted)


def test_previous_token_scores_of_the_head_detector_times_n_over_n_less_1_are_ours():
    from transformer_lens.head_detector import compute_head_attention_similarity_score

    checkpoint = load("zoo:mixed-0")
    prompts = evaluation_prompts(checkpoint.config, "linear", n_prompts=16, seed=0)
    ours = score(checkpoint, "linear", kind="previous_token", n_prompts=16, seed=0).values["linear"]
    _, cache = hooked(checkpoint).run_with_cache(prompts.tokens)
    n = prompts.tokens.shape[1]
    previous = torch.diag(torch.ones(n - 1), -1)
    for layer in range(3):
        for head in range(8):
            theirs = [
                compute_head_attention_similarity_score(
                    pattern, previous, exclude_bos=False, exclude_current_token=False, error_measure="mul"
                )
                for pattern in cache[f"blocks.{layer}.attn.hook_pattern"][:, head]
            ]
            assert sum(theirs) / len(theirs) * n / (n - 1) == pytest.approx(float(ours[layer][head]), abs=1e-5)
