"""Which later components read what a component writes: path patching.

Wang et al. 2022 (arXiv 2211.00593); Goldowsky-Dill et al. 2023 (arXiv 2304.05969).

The receivers' inputs (q, k or v of a head, an MLP's input, the read-out's) are computed as if the senders wrote what
they write in the source run. Every other component between senders and receivers keeps its output of the base run, and
everything after a receiver is recomputed, later receivers of the same set included. A path's effect is therefore that
of the direct step from sender to receiver and of everything downstream of it. The total effect of the senders patches
their outputs for all components that read them. Effects of several paths need not add up to the total, since later
components combine what they read.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from interp.display.result import Result
from interp.model.heads import (
    EMBED,
    MLP,
    Head,
    HeadSet,
    Scores,
    all_heads,
    check_head,
    parse_heads,
    refuse_absent_mlps,
    show,
)
from interp.model.opened import opens_models
from interp.names import CorruptionName
from interp.patching.effects import Outcomes, effect_of, effect_resamples, gap_exists
from interp.patching.engine import read_activations
from interp.patching.maps import baseline_errors, mean_columns
from interp.patching.path_receivers import INPUTS, Receiver, ReceiverChoice, choose_receivers
from interp.patching.runner import Direction, MakeActivations, Question, check_direction, run_patches
from interp.patching.sites import Activations, Patch, Variant, stack_patches
from interp.scores.head_choice import HeadChoice, sets_of
from interp.statistics.effects import LEAST_NAMED, UNDEFINED, differs_from_zero, interval_of
from training.checkpoints.checkpoint import Checkpoint
from training.common.errors import UserError
from training.common.library_defaults import library_defaults
from training.common.progress import progress_bar
from training.model.sites import Sites
from training.model.transformer import EVERY, Transformer, project
from training.tasks.function_classes import choose_classes

ALL = "all"
"""The receiver in the row of the senders' total effect: every component that reads them."""


@dataclass(frozen=True, repr=False, eq=False)
class PathEffects(Result):
    """The effects of paths.

    Attributes:
        checkpoint: the model's name.
        step: of its training.
        table: one row per function class, sender set and receiver set: `effect` with its 95 % interval over prompts
            (0: the prediction is unchanged, 1: as if everything had been patched); `share`, the effect over the
            senders' total effect (receiver `all`), with its interval, missing where the total effect does not differ
            from 0 or is below `LEAST_NAMED`; and `nmse`, the error to the clean answer.
        question: prompts and direction.
        baseline_errors: one row per class: errors of the clean and the corrupt run and of the no-context optimum.
    """

    checkpoint: str
    step: int
    table: pd.DataFrame
    question: Question
    baseline_errors: pd.DataFrame

    @property
    def files(self) -> Mapping[str, pd.DataFrame]:
        return {"paths": self.table, "paths_baseline_errors": self.baseline_errors}


@opens_models
def path_effects(
    checkpoint: Checkpoint,
    senders: HeadChoice,
    receivers: ReceiverChoice,
    classes: str | Sequence[str] | None = None,
    *,
    corrupt: CorruptionName | str = "prompt",
    direction: Direction | str = "noise",
    examples: int | None = None,
    n_prompts: int = 1024,
    seed: int = 0,
) -> PathEffects:
    """Patch the paths from every set of senders to every set of receivers that reads it.

    The defaults ask which paths are necessary: the clean run is patched, with the senders' outputs on another prompt.

    Args:
        checkpoint: a loaded run.
        senders: heads and MLPs (`interp.scores.head_choice.HeadChoice`), `embed`, or `each` component alone; the
            components of a set are patched together.
        receivers: text (`interp.patching.path_receivers.SYNTAX`), a `Head` (its q, k and v), or several sets of inputs,
            each as text, as a `Head` or as a tuple of `Receiver`, which are changed together.
        classes: function classes; None takes those of the run.
        corrupt: a name in `interp.patching.prompt_pairs.CORRUPTIONS`.
        direction: `noise` patches the senders' outputs of the corrupt run into the clean run, `denoise` vice versa.
        examples: (x, y) pairs before the query; None takes as many as there are.
        n_prompts: per class.
        seed: of prompts and resampling.

    Raises:
        CheckError: a patch had no effect where it must have one, or an effect where it must have none.
        UserError: an unknown name, or no receiver reads any of the senders.
    """
    classes = choose_classes(classes, checkpoint.config.evaluated_classes)
    question = Question(corrupt, check_direction(direction), examples, n_prompts, seed)
    model = checkpoint.config.model
    shape, has_mlps = (model.n_layers, model.n_heads), bool(model.mlp_width)
    if isinstance(senders, str):
        sender_sets = parse_senders(senders, *shape, lambda: question.scores(checkpoint), has_mlps=has_mlps)
    else:
        sender_sets = sets_of(senders, *shape, lambda: question.scores(checkpoint))
        if not sender_sets or not all(sender_sets):
            raise UserError("no senders are given: name them as text such as '0.1,1.2', or as sets of Head")
        for head in (head for members in sender_sets for head in members if head != EMBED):
            check_head(head, str(head), *shape)
    refuse_absent_mlps(sender_sets, model)
    receiver_sets = choose_receivers(receivers, *shape, has_mlps=has_mlps)
    return patch_paths(checkpoint, classes, question, bundle_paths(sender_sets, receiver_sets))


@library_defaults()
def patch_paths(
    checkpoint: Checkpoint, classes: Sequence[str], question: Question, bundles: "Sequence[PathBundle]"
) -> PathEffects:
    """The effects of these paths (`bundle_paths`)."""
    jobs = [job for bundle in bundles for job in bundle.jobs]
    make_activations = path_activations(bundles)
    rows, errors = [], []
    with progress_bar(total=len(classes) * sum(map(len, jobs)), desc="paths", unit="path") as bar:
        for function_class in classes:
            outcomes = run_patches(checkpoint, function_class, question, jobs, make_activations, bar).outcomes
            errors.append(baseline_errors(function_class, outcomes))
            about = {"function_class": function_class, "corrupt": question.corrupt, "direction": question.direction}
            rows += [about | row for row in path_rows(bundles, outcomes, function_class, question)]
    return PathEffects(checkpoint.name, checkpoint.step, pd.DataFrame(rows), question, pd.DataFrame(errors))


class PathBundle(NamedTuple):
    """The paths from one set of senders to several sets of receivers."""

    senders: HeadSet
    receivers: list[tuple[Receiver, ...]]

    @property
    def jobs(self) -> list[list[Variant]]:
        """The senders' outputs patched for every later component, then the inputs of each group of receiver sets."""
        total = tuple(output_patch(sender) for sender in self.senders)
        return [[total], *([input_patches(receivers) for receivers in group] for group in self.groups)]

    @property
    def groups(self) -> list[list[tuple[Receiver, ...]]]:
        """The sets of receivers in their order, grouped by the activations that are patched in.

        All single receivers share them (inputs changed by the senders alone); the inputs of a larger set also depend on
        each other.
        """
        return [list(group) for _, group in groupby(self.receivers, lambda inputs: inputs if len(inputs) > 1 else ())]

    @property
    def names(self) -> list[str]:
        return [ALL, *(",".join(map(str, receivers)) for receivers in self.receivers)]


def bundle_paths(senders: Sequence[HeadSet], receivers: Sequence[tuple[Receiver, ...]]) -> list[PathBundle]:
    """The paths that exist: from every set of senders to each set of receivers of which every receiver reads it.

    Raises:
        UserError: no receiver reads any of the senders.
    """
    bundles = [
        PathBundle(heads, [inputs for inputs in receivers if all(receiver.reads_any(heads) for receiver in inputs)])
        for heads in senders
    ]
    bundles = [bundle for bundle in bundles if bundle.receivers]
    if not bundles:
        raise UserError(f"no such path: nothing in --to reads what {', '.join(map(show, senders))} writes")
    return bundles


def output_patch(sender: Head) -> Patch:
    if sender == EMBED:
        return Patch("resid_pre", 0)
    return Patch("mlp_out", sender.layer) if sender.number == MLP else Patch("z", sender.layer, (sender.number,))


def input_patches(receivers: tuple[Receiver, ...]) -> Variant:
    return tuple(receiver.patch() for receiver in receivers)


def path_activations(bundles: Sequence[PathBundle]) -> MakeActivations:
    """For every job, the senders' outputs in the source run, or the receivers' inputs changed by the senders."""

    def make_activations(
        model: Transformer, base: Float[Tensor, "batch pos dim"], source: Float[Tensor, "batch pos dim"]
    ) -> Iterator[Activations]:
        outputs = [(layer, site) for layer in range(model.config.n_layers) for site in ("z", "mlp_out")]
        of_base, of_source = (
            read_activations(model, tokens, [(0, "resid_pre"), *outputs]) for tokens in (base, source)
        )
        for bundle in bundles:
            yield of_source
            change = output_changes(model, of_base, of_source, bundle.senders)
            for group in bundle.groups:
                together = group[0] if len(group[0]) > 1 else ()
                yield changed_inputs(model, of_base[0, "resid_pre"], change, input_patches(together))

    return make_activations


Change = Mapping[Head, Float[Tensor, "batch pos d_model"]]
"""By sender, its output in the source run minus its output in the base run."""


@torch.no_grad()
def output_changes(model: Transformer, base: Activations, source: Activations, senders: HeadSet) -> Change:
    changes = {}
    for sender in senders:
        patch = output_patch(sender)
        change = source[patch.layer, patch.site] - base[patch.layer, patch.site]
        if patch.site == "z":
            change = change[:, :, sender.number] @ model.layers[sender.layer].attn.W_O[sender.number]
        changes[sender] = change
    return changes


@torch.no_grad()
def changed_inputs(
    model: Transformer, resid_pre: Float[Tensor, "batch pos d_model"], change: Change, together: Variant = ()
) -> Activations:
    """q, k and v of every head, mlp_out of every MLP and the final stream, each computed from a base-run input to which
    the earlier senders' changes are added.

    Args:
        model: the transformer.
        resid_pre: the first residual stream of the base run.
        change: of the senders.
        together: inputs that are already changed while later ones are computed; all others are as in the base run.
    """
    activations, resid, zero = {}, resid_pre, torch.zeros_like(resid_pre)
    of_heads, of_mlps = (
        stack_patches(
            [tuple(patch for patch in together if patch.site in sites)],
            resid.shape[1],
            model.config.n_heads,
            model.device,
        )
        for sites in (INPUTS, ("mlp_out",))
    )
    for layer, block in enumerate(model.layers):
        before_heads = sum((written for sender, written in change.items() if sender.layer < layer), zero)
        normalized, attn = block.ln1(resid + before_heads), block.attn
        for name, weight, bias in (("q", attn.W_Q, attn.b_Q), ("k", attn.W_K, attn.b_K), ("v", attn.W_V, attn.b_V)):
            activations[layer, name] = project(normalized, weight, bias)
        z = block.mix(resid, Sites(of_heads.layer_edits(layer, 0, EVERY, activations)))
        resid = resid + attn.write(z)
        heads = (head for head in change if head.layer == layer and head.number != MLP)
        before_mlp = sum((change[head] for head in heads), before_heads)
        activations[layer, "mlp_out"] = block.mlp_out(resid + before_mlp)
        resid = block.transform(resid, Sites(of_mlps.layer_edits(layer, 0, EVERY, activations)))
    activations[model.config.n_layers - 1, "resid_post"] = resid + sum(change.values(), zero)
    return activations


def path_rows(
    bundles: Sequence[PathBundle], outcomes: Outcomes, function_class: str, question: Question
) -> Iterator[dict[str, Any]]:
    """One row per path of one class."""
    weights, (base, source) = question.bootstrap(function_class), question.ends(outcomes)
    effects = effect_of(outcomes.patched, base, source, weights)
    resamples = effect_resamples(outcomes.patched, base, source, weights) if gap_exists(base, source) else None
    nmse = mean_columns("nmse", outcomes.nmse, weights)
    first = 0
    for bundle in bundles:
        total = effects[first]
        has_effect = abs(total.value) >= LEAST_NAMED and differs_from_zero(total.ci_low, total.ci_high)
        for index, receiver in enumerate(bundle.names, start=first):
            effect, share = effects[index], UNDEFINED
            if resamples is not None and has_effect:
                share = interval_of(effect.value / total.value, resamples[:, index] / resamples[:, first])
            yield (
                {"sender": show(bundle.senders), "receiver": receiver}
                | {"effect": effect.value, "ci_low": effect.ci_low, "ci_high": effect.ci_high}
                | {"share": share.value, "share_low": share.ci_low, "share_high": share.ci_high}
                | nmse[index]
            )
        first += len(bundle.names)


def parse_senders(
    text: str, n_layers: int, n_heads: int, scores: Callable[[], Scores] | None = None, *, has_mlps: bool = True
) -> list[HeadSet]:
    """The sets of senders named by `--from`: as `--heads`, or `embed`.

    `each` gives the read-in, every head and every MLP as a set of its own.

    Raises:
        UserError: malformed, or no such component.

    >>> [show(senders) for senders in parse_senders("each", 1, 2)], parse_senders("embed", 1, 2)
    (['embed', '0.0', '0.1', '0.mlp'], [(Head(layer=-1, number=-2),)])
    """
    if text == "embed":
        return [(EMBED,)]
    if text == "each":
        mlps = [Head(layer, MLP) for layer in range(n_layers)] if has_mlps else []
        components = [*all_heads(n_layers, n_heads), *mlps]
        components.sort(key=lambda head: (head.layer, head.number == MLP, head.number))
        return [(EMBED,), *((component,) for component in components)]
    return parse_heads(text, n_layers, n_heads, scores)
