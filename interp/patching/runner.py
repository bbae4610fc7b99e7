"""Runs every patch on the prompts of one class, in chunks, and keeps the prediction of each prompt at the query."""

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
from interp.patching.engine import predict_patched, run_on
from interp.patching.prompt_pairs import PromptPairs, prompt_pairs
from interp.patching.self_checks import CHECKED, PLAIN, Acting, check_patches, require_difference
from interp.patching.sites import Given, Variant, patches_of
from interp.scores.score import selection_scores
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import one_of
from training.config.config import ModelConfig
from training.model.transformer import Transformer
from training.tasks.function_classes import function_class
from training.tasks.prompts import Prompts

Direction = Literal["denoise", "noise"]
DIRECTIONS: Mapping[Direction, str] = {
    "denoise": "patch the clean run's activations into the corrupt run: what is enough?",
    "noise": "patch the corrupt run's activations into the clean run: what is needed?",
}
CHUNK = 256  # prompts


def check_direction(name: str) -> Direction:
    """The direction behind `--direction NAME`.

    Raises:
        UserError: there is none.
    """
    if name not in DIRECTIONS:
        raise one_of("--direction", name, DIRECTIONS)
    return name  # type: ignore[return-value]  # one of the literals


class Question(NamedTuple):
    """What is asked of a model, beyond where it is patched.

    Attributes:
        corrupt: a name in `interp.patching.prompt_pairs.CORRUPTIONS`.
        direction: a name in `DIRECTIONS`.
        examples: pairs before the query; None is as many as there are.
        n_prompts: per class.
        seed: of prompts and resampling.
    """

    corrupt: str = "function"
    direction: Direction = "denoise"
    examples: int | None = None
    n_prompts: int = 1024
    seed: int = 0

    def pairs(self, checkpoint: Checkpoint, name: str) -> PromptPairs:
        pairs = prompt_pairs(
            checkpoint.config,
            name,
            self.corrupt,
            n_prompts=self.n_prompts,
            seed=self.seed,
            examples=self.examples,
        )
        return pairs.to(checkpoint.model.device)

    def check(self, checkpoint: Checkpoint, names: Sequence[str]) -> int:
        """How many examples stand before the query.

        Raises:
            UserError: no such corruption, direction or number of examples, or a class does not allow the corruption.
        """
        check_direction(self.direction)
        return max(self.pairs(checkpoint, name).n_examples for name in names)

    def scores(self, checkpoint: Checkpoint) -> Float[np.ndarray, "layer head"]:
        """What heads are chosen by (`interp.scores.score.selection_scores`)."""
        return selection_scores(checkpoint, self.n_prompts, self.seed)

    @property
    def base(self) -> str:
        return "corrupt" if self.direction == "denoise" else "clean"

    def sides(self, pairs: PromptPairs) -> tuple[Prompts, Prompts]:
        """(base, source): the prompts whose run is patched, and those that activations come from."""
        return (pairs.corrupt, pairs.clean) if self.direction == "denoise" else (pairs.clean, pairs.corrupt)

    def ends(self, outcomes: Outcomes) -> tuple[Float[np.ndarray, " prompt"], Float[np.ndarray, " prompt"]]:
        """(base, source) predictions."""
        ends = (outcomes.corrupt, outcomes.clean)
        return ends if self.direction == "denoise" else (ends[1], ends[0])


class Sweep(NamedTuple):
    """What patching gave on one class.

    Attributes:
        outcomes: predictions at the query.
        differs: by variant, whether anything that was patched in differs from what was there, on the first prompts.
        varies: by variant, whether anything that was patched differs between the first prompts.
    """

    outcomes: Outcomes
    differs: Bool[np.ndarray, " variant"]
    varies: Bool[np.ndarray, " variant"]


Prepare = Callable[
    [Transformer, Float[Tensor, "batch pos dim"], Float[Tensor, "batch pos dim"]],
    Iterator[Given],
]
"""From a model and the tokens of base and source, what each job patches in, one after the other."""


def patch_sweep(
    checkpoint: Checkpoint,
    name: str,
    question: Question,
    jobs: Sequence[Sequence[Variant]],
    prepare: Prepare,
    bar: "tqdm[Any]",
) -> Sweep:
    """Patch every variant of every job on the prompts of one class.

    Args:
        checkpoint: the model.
        name: function class.
        question: prompts and direction.
        jobs: where to patch; the variants of a job share what is patched in.
        prepare: gives what is patched in, for every job.
        bar: advances by one for every variant.

    Raises:
        CheckError: a patch did not act, or acted where it should not.
        UserError: the class does not allow the corruption.
    """
    model, pairs = checkpoint.model, question.pairs(checkpoint, name)
    base, source = question.sides(pairs)
    variants = [variant for job in jobs for variant in job]
    few = range(min(CHECKED, question.n_prompts))
    own, other = (model.needed(side.rows(few).tokens) for side in (base, source))
    n_plain = max(1, PLAIN // len(jobs))

    def check(job: tuple[Sequence[Variant], Given]) -> Acting:
        with torch.no_grad():
            return check_patches(model, own, other, *job, n_plain=n_plain)

    acting = map_parts(check, zip(jobs, prepare(model, own, other), strict=True))
    differs, varies = (torch.cat(parts).cpu() for parts in zip(*acting, strict=True))
    require_difference(Acting(differs, varies), variants)
    n_prompts, n_tokens = question.n_prompts, own.shape[1]
    size, stack = pass_sizes(model.config, n_tokens, n_prompts, torch.get_num_threads())

    def run(prompts: range) -> Float[np.ndarray, "variant chunk"]:
        own, other = (model.needed(side.rows(prompts).tokens) for side in (base, source))
        run_of_base, parts = run_on(model, own), []
        for job, given in zip(jobs, prepare(model, own, other), strict=True):
            found = np.empty((len(job), len(prompts)))
            for places in stackable(job, stack):
                patches = patches_of([job[i] for i in places], n_tokens, model.config.n_heads, model.device)
                found[places] = predict_patched(model, run_of_base, patches, given).double().cpu().numpy()
                bar.update(len(places) * len(prompts) / n_prompts)
            parts.append(found)
        return np.concatenate(parts)

    patched = np.concatenate(map_parts(run, chunks(n_prompts, size)), axis=1)
    return Sweep(outcomes_of(checkpoint, name, pairs, patched), differs.numpy(), varies.numpy())


def outcomes_of(
    checkpoint: Checkpoint, name: str, pairs: PromptPairs, patched: Float[np.ndarray, "variant prompt"]
) -> Outcomes:
    """Patched predictions beside those of both runs and of the no-context optimum."""
    config = checkpoint.config
    clean, corrupt = (predictions_at_query(checkpoint.model, side) for side in pairs)
    with torch.no_grad():
        no_context = function_class(name).no_context(pairs.clean.xs, config.data.weights)[:, -1].cpu().double().numpy()
    answer = pairs.answer.cpu().double().numpy()
    return Outcomes(patched, clean, corrupt, answer, no_context, config.second_moment(name))


def predictions_at_query(model: Transformer, prompts: Prompts) -> Float[np.ndarray, " prompt"]:
    with torch.no_grad():
        parts = [model.predict(tokens)[:, -1] for tokens in prompts.tokens.split(CHUNK)]
    return torch.cat(parts).double().cpu().numpy()


def stackable(variants: Sequence[Variant], most: int) -> Iterator[list[int]]:
    """Places of variants that share their first layer and first token, so that they can be run in one pass."""
    groups: dict[tuple[int, int], list[int]] = {}
    for place, variant in enumerate(variants):
        first = min((patch.layer for patch in variant), default=-1)
        tokens = [0 if patch.tokens is None else int(patch.tokens.nonzero()[0]) for patch in variant]
        groups.setdefault((first, min(tokens, default=0)), []).append(place)
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
