"""Function-vector scores: does what a head writes at the query, averaged over prompts, carry the function?

1. Clean prompts, and the same with every y moved to another example's x (the corruption `permuted`).
2. The mean output z of every head at the query, over `N_SAME` other prompts of the same function as each clean prompt.
3. The run over permuted examples, with one head's z at the query replaced by that mean. The score is the effect of the
   patch (`interp.patching.effects`): 0 where the prediction stays, 1 where it becomes that after intact examples.

Todd et al. 2023 (arXiv 2310.15213, section 2.3) call it the causal indirect effect, and take the probability of the
answer for the prediction.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.model.engine import read_sites
from interp.model.heads import all_heads
from interp.model.parallel import map_parts
from interp.patching.effects import gap_exists
from interp.patching.engine import predict_patched, record_run
from interp.patching.prompt_pairs import CorruptionRequest, PromptPairs, permute_ys
from interp.patching.runner import chunks, pass_sizes, predictions_at_query
from interp.patching.self_checks import CHECKED, check_patches
from interp.patching.sites import Activations, Variant, head_patches, hook_of, stack_patches
from interp.scores.measured import ScoredPrompts
from training.common.errors import UserError
from training.config.config import stream_seed
from training.evaluation.evaluate import evaluation_functions
from training.evaluation.own_run import OwnRun
from training.model.transformer import Transformer
from training.sampling import Sampled, draw
from training.tasks.function_classes import function_class
from training.tasks.prompts import Prompts

N_SAME = 16
"""Prompts of the same function over which a head's output is averaged."""


def measure_function_vectors(scored: ScoredPrompts) -> Float[np.ndarray, "batch layer head"]:
    """The effect of a head's mean output over prompts of the same function, put into a prompt with permuted y.

    The mean over prompts is the effect; their spread is that of the effect, whose numerator and denominator are means
    over the same prompts (linearised).

    Raises:
        CheckError: a patch had an effect where it must have none.
        UserError: the prompts are a user's own, whose functions are unknown, or have a single example.
    """
    model = scored.checkpoint.model
    pairs, means = permuted_pairs(scored), same_function_means(scored)
    variants = [head_patches("z", (head,), query_mask(pairs)) for head in all_heads(*means.shape[1:3])]
    patched = predict_with_means(model, pairs, means, variants)
    clean, corrupt = (predictions_at_query(model, side) for side in pairs)
    values = effect_by_prompt(patched, corrupt, clean)
    return values.T.reshape(scored.n_prompts, *means.shape[1:3])


def permuted_pairs(scored: ScoredPrompts) -> PromptPairs:
    """The prompts, and the same with permuted examples, on the model's device."""
    config, clean = scored.checkpoint.config, scored.prompts
    generator = torch.Generator().manual_seed(stream_seed("function vectors", scored.seed, scored.function_class))
    if clean.xs.shape[1] < 3:
        raise UserError("the score function_vector needs at least two examples before the query")
    request = CorruptionRequest(config, scored.function_class, clean, scored.seed, generator, None)
    return PromptPairs(clean, permute_ys(request)).to(scored.checkpoint.model.device)


def same_function_means(scored: ScoredPrompts) -> Float[Tensor, "batch layer head d_head"]:
    """The mean output of every head at the query, over other prompts of the same function as each prompt."""
    model, n_prompts = scored.checkpoint.model, scored.n_prompts
    hooks = [hook_of("z", layer) for layer in range(model.config.n_layers)]

    @torch.no_grad()
    def read_at_query(prompts: Prompts) -> Float[Tensor, "batch layer head d_head"]:
        z = read_sites(model, model.needed(prompts.tokens.to(model.device)), hooks)
        return torch.stack([z[hook][:, -1] for hook in hooks], dim=1)

    total: Tensor | None = None
    for prompts in other_prompts(scored):
        parts = map_parts(read_at_query, (prompts.rows(rows) for rows in chunks(n_prompts, 256)))
        total = torch.cat(parts) if total is None else total + torch.cat(parts)
    assert total is not None
    return total / N_SAME


def other_prompts(scored: ScoredPrompts) -> Iterator[Prompts]:
    """Prompts of the same functions, with other inputs and another query."""
    config, name, n_prompts = scored.checkpoint.config, scored.function_class, scored.n_prompts
    if isinstance(config, OwnRun):
        raise UserError("the score function_vector needs function classes: those of your own prompts are unknown")
    sampled: Sampled = evaluation_functions(config, name, n_prompts=n_prompts, seed=scored.seed, stream=scored.stream)
    generator = torch.Generator().manual_seed(stream_seed("same function", scored.stream, scored.seed, name))
    for _ in range(N_SAME):
        xs = draw(config, name, generator, n_prompts, None, config.data.n_points).xs
        xs, ys = function_class(name).pairs(xs, sampled.weights, generator)
        yield sampled.prompts._replace(xs=xs, ys=ys)


def query_mask(pairs: PromptPairs) -> Tensor:
    """Which token is the query, of all that predictions need."""
    n_needed = pairs.clean.layout.n_needed(pairs.clean.tokens.shape[1])
    return torch.arange(n_needed) == n_needed - 1


def predict_with_means(
    model: Transformer, pairs: PromptPairs, means: Float[Tensor, "batch layer head d_head"], variants: list[Variant]
) -> Float[np.ndarray, "variant batch"]:
    """Predictions after permuted examples, with the mean of one head at the query."""
    n_prompts, n_tokens = means.shape[0], len(query_mask(pairs))

    def run(rows: range) -> Float[np.ndarray, "variant chunk"]:
        base, given = record_run(model, model.needed(pairs.corrupt.rows(rows).tokens)), activations(rows)
        passes = (variants[start : start + pass_size] for start in range(0, len(variants), pass_size))
        patches = (stack_patches(part, n_tokens, model.config.n_heads, model.device) for part in passes)
        return np.concatenate([predict_patched(model, base, part, given).double().cpu().numpy() for part in patches])

    def activations(rows: range) -> Activations:
        by_layer = means[rows.start : rows.stop, None].expand(-1, n_tokens, -1, -1, -1).unbind(2)
        return {(layer, "z"): values for layer, values in enumerate(by_layer)}

    first = range(min(CHECKED, n_prompts))
    base, source = (model.needed(side.rows(first).tokens) for side in (pairs.corrupt, pairs.clean))
    with torch.no_grad():
        check_patches(model, base, source, variants, activations(first))
    chunk_size, pass_size = pass_sizes(model.config, n_tokens, n_prompts, torch.get_num_threads())
    return np.concatenate(map_parts(run, chunks(n_prompts, chunk_size)), axis=1)


def effect_by_prompt(
    patched: Float[np.ndarray, "variant batch"], base: Float[np.ndarray, " batch"], source: Float[np.ndarray, " batch"]
) -> Float[np.ndarray, "variant batch"]:
    """Values whose mean is the effect of each variant, and whose spread is that of the effect, a ratio of means.

    NaN where base and source predict the same.

    >>> base, source = np.zeros(3), np.array([1.0, 2.0, -1.0])
    >>> effect_by_prompt(np.stack([base, source / 2]), base, source).mean(1)
    array([0. , 0.5])
    """
    if not gap_exists(base, source):
        return np.full_like(patched, np.nan)
    gap = source - base
    moved, squared = (patched - base) * gap, np.square(gap)
    effects = moved.mean(1, keepdims=True) / squared.mean()
    return effects + (moved - effects * squared) / squared.mean()
