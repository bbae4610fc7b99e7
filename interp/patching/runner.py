"""Runs every patch on the prompts of one class, in chunks, and keeps each prompt's prediction at the query."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm import tqdm

from interp.ablation.runner import PASS, balanced_chunk_size
from interp.model.parallel import map_parts
from interp.patching.effects import Outcomes
from interp.patching.engine import predict_patched, record_run
from interp.patching.prompt_pairs import PromptPairs, prompt_pairs
from interp.patching.self_checks import CHECKED, PLAIN, check_patches, require_difference
from interp.patching.sites import Activations, Variant, stack_patches
from interp.scores.score import selection_scores
from training.checkpoints.checkpoint import Checkpoint
from training.common.bootstrap import bootstrap_weights
from training.common.errors import one_of
from training.config.config import ModelConfig, stream_seed
from training.model.transformer import Transformer
from training.pools import no_context
from training.tasks.prompts import Prompts

Direction = Literal["denoise", "noise"]
DIRECTIONS: Mapping[Direction, str] = {
    "denoise": "patch the clean run's activations into the corrupt run: what is sufficient?",
    "noise": "patch the corrupt run's activations into the clean run: what is necessary?",
}
CHUNK = 256  # prompts


def check_direction(name: str) -> Direction:
    """The direction named by `--direction`.

    Raises:
        UserError: there is no such direction.
    """
    if name not in DIRECTIONS:
        raise one_of("--direction", name, DIRECTIONS)
    return name  # type: ignore[return-value]  # one of the literals


class Question(NamedTuple):
    """How clean and corrupt prompts differ, which of the two runs is patched, and on how many prompts.

    Attributes:
        corrupt: a name in `interp.patching.prompt_pairs.CORRUPTIONS`.
        direction: a name in `DIRECTIONS`.
        examples: (x, y) pairs before the query; None takes as many as there are.
        n_prompts: per class.
        seed: of prompts and resampling.
    """

    corrupt: str = "function"
    direction: Direction = "denoise"
    examples: int | None = None
    n_prompts: int = 1024
    seed: int = 0

    def pairs(self, checkpoint: Checkpoint, function_class: str) -> PromptPairs:
        """The prompts of one class, on the model's device."""
        corrupt, _, examples, n_prompts, seed = self
        pairs = prompt_pairs(
            checkpoint.config, function_class, corrupt, n_prompts=n_prompts, seed=seed, examples=examples
        )
        return pairs.to(checkpoint.model.device)

    def check(self, checkpoint: Checkpoint, classes: Sequence[str]) -> int:
        """The number of examples before the query.

        Raises:
            UserError: no such corruption, direction or number of examples, or a class does not allow the corruption.
        """
        check_direction(self.direction)
        return max(self.pairs(checkpoint, function_class).n_examples for function_class in classes)

    def scores(self, checkpoint: Checkpoint) -> Float[np.ndarray, "layer head"]:
        """The scores by which `top:K` and `above:SCORE` choose heads (`interp.scores.score.selection_scores`)."""
        return selection_scores(checkpoint, self.n_prompts, self.seed)

    def bootstrap(self, function_class: str) -> Float[np.ndarray, "resample prompt"]:
        """Resamples of the prompts of one class."""
        rng = np.random.default_rng(stream_seed("bootstrap", self.seed, function_class))
        return bootstrap_weights(self.n_prompts, rng)

    @property
    def base(self) -> str:
        """The run that is patched: `clean` or `corrupt`."""
        return "corrupt" if self.direction == "denoise" else "clean"

    def sides(self, pairs: PromptPairs) -> tuple[Prompts, Prompts]:
        """(base, source): the prompts whose run is patched, and the prompts whose activations are patched in."""
        return (pairs.corrupt, pairs.clean) if self.direction == "denoise" else (pairs.clean, pairs.corrupt)

    def ends(self, outcomes: Outcomes) -> tuple[Float[np.ndarray, " prompt"], Float[np.ndarray, " prompt"]]:
        """(base, source) predictions."""
        ends = (outcomes.corrupt, outcomes.clean)
        return ends if self.direction == "denoise" else (ends[1], ends[0])


class PatchedClass(NamedTuple):
    """Every patch on the prompts of one class.

    Attributes:
        outcomes: predictions at the query.
        changed: by variant, whether any patched activation differs between base and source, on the first prompts.
        varies: by variant, whether any patched activation differs between the first prompts of the base run.
    """

    outcomes: Outcomes
    changed: Bool[np.ndarray, " variant"]
    varies: Bool[np.ndarray, " variant"]


MakeActivations = Callable[
    [Transformer, Float[Tensor, "batch pos dim"], Float[Tensor, "batch pos dim"]],
    Iterator[Activations],
]
"""From a model and the tokens of base and source, the activations that each job patches in, job by job."""


def run_patches(
    checkpoint: Checkpoint,
    function_class: str,
    question: Question,
    jobs: Sequence[Sequence[Variant]],
    make_activations: MakeActivations,
    bar: "tqdm[Any]",
) -> PatchedClass:
    """Run every variant of every job on the prompts of one class.

    Args:
        checkpoint: a loaded run.
        function_class: of the prompts.
        question: prompts and direction.
        jobs: the variants; those of a job share the activations that are patched in.
        make_activations: gives these activations for every job.
        bar: advances by one for every variant.

    Raises:
        CheckError: a patch had no effect where it must have one, or an effect where it must have none.
        UserError: the class does not allow the corruption.
    """
    model, pairs = checkpoint.model, question.pairs(checkpoint, function_class)
    sides = question.sides(pairs)

    def activations_by_job(prompts: range) -> tuple[Tensor, Tensor, Iterator[tuple[Sequence[Variant], Activations]]]:
        base, source = (model.needed(side.rows(prompts).tokens) for side in sides)
        return base, source, zip(jobs, make_activations(model, base, source), strict=True)

    base, source, checked = activations_by_job(range(min(CHECKED, question.n_prompts)))
    n_plain = max(1, PLAIN // len(jobs))

    def check(job: tuple[Sequence[Variant], Activations]) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return check_patches(model, base, source, *job, n_plain=n_plain)

    changed, varies = (torch.cat(parts).cpu() for parts in zip(*map_parts(check, checked), strict=True))
    require_difference(changed, varies, [variant for job in jobs for variant in job])
    n_prompts, n_tokens = question.n_prompts, base.shape[1]
    chunk_size, pass_size = pass_sizes(model.config, n_tokens, n_prompts, torch.get_num_threads())

    def run(prompts: range) -> Float[np.ndarray, "variant chunk"]:
        base, _, activations = activations_by_job(prompts)
        base_run, parts = record_run(model, base), []
        for variants, source in activations:
            predictions = np.empty((len(variants), len(prompts)))
            for group in group_variants(variants, pass_size):
                patches = stack_patches([variants[i] for i in group], n_tokens, model.config.n_heads, model.device)
                predictions[group] = predict_patched(model, base_run, patches, source).double().cpu().numpy()
                bar.update(len(group) * len(prompts) / n_prompts)
            parts.append(predictions)
        return np.concatenate(parts)

    patched = np.concatenate(map_parts(run, chunks(n_prompts, chunk_size)), axis=1)
    return PatchedClass(collect_outcomes(checkpoint, function_class, pairs, patched), changed.numpy(), varies.numpy())


def collect_outcomes(
    checkpoint: Checkpoint, function_class: str, pairs: PromptPairs, patched: Float[np.ndarray, "variant prompt"]
) -> Outcomes:
    """Patched predictions beside those of both runs and of the no-context optimum."""
    config = checkpoint.config
    clean, corrupt = (predictions_at_query(checkpoint.model, side) for side in pairs)
    with torch.no_grad():
        without = no_context(config, function_class, pairs.clean)[:, -1]
    answer = pairs.answer.cpu().double().numpy()
    unit = config.second_moment(function_class)
    return Outcomes(patched, clean, corrupt, answer, without.cpu().double().numpy(), unit)


def predictions_at_query(model: Transformer, prompts: Prompts) -> Float[np.ndarray, " prompt"]:
    with torch.no_grad():
        parts = [model.predict(tokens)[:, -1] for tokens in prompts.tokens.split(CHUNK)]
    return torch.cat(parts).double().cpu().numpy()


def group_variants(variants: Sequence[Variant], most: int) -> Iterator[list[int]]:
    """Indices of variants that can run in one pass: they share their first layer and first token."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, variant in enumerate(variants):
        first_layer = min((patch.layer for patch in variant), default=-1)
        tokens = [0 if patch.tokens is None else int(patch.tokens.nonzero()[0]) for patch in variant]
        groups.setdefault((first_layer, min(tokens, default=0)), []).append(index)
    for group in groups.values():
        for start in range(0, len(group), most):
            yield group[start : start + most]


def chunks(n_prompts: int, size: int) -> Iterator[range]:
    for start in range(0, n_prompts, size):
        yield range(start, min(start + size, n_prompts))


def pass_sizes(config: ModelConfig, n_tokens: int, n_prompts: int, n_workers: int) -> tuple[int, int]:
    """(prompts in a chunk, variants in a pass) whose widest activation is about `PASS` bytes."""
    rows = max(1, PASS // (16 * n_tokens * config.d_model))  # the MLP is four times as wide, 4 bytes a number
    prompts = balanced_chunk_size(n_prompts, min(CHUNK, rows), n_workers)
    return prompts, max(1, rows // prompts)
