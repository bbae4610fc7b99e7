"""Who reads what a component writes: path patching (Wang et al. 2022, arXiv 2211.00593; Goldowsky-Dill et al. 2023).

The senders write what they write in the source run; the receivers alone see it, through one of their inputs (q, k or v
of a head, an MLP, the read-out); every component between the two gives what it gives in the base run; whatever comes
after the receivers reacts, a later receiver of the same set too. So a path's effect is that of its first step, from
sender to receiver, and of all that follows it; that of a component to all that read it is its whole effect. Effects of
several paths need not add up to that of the senders: later components combine what they read.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from interp.display.result import Result
from interp.model.heads import EMBED, MLP, Head, HeadSet, Scores, all_heads, parse_heads, show
from interp.patching.effects import Outcomes, effect_of, effect_resamples, gap_exists
from interp.patching.engine import recorded
from interp.patching.maps import end_row, with_intervals
from interp.patching.path_receivers import INPUTS, Receiver
from interp.patching.runner import Prepare, Question, check_direction, patch_sweep
from interp.patching.sites import Given, Patch, Variant, patches_of
from interp.statistics.effects import TIE, UNDEFINED, differs_from_zero, interval_of
from training.checkpoints.checkpoint import Checkpoint
from training.common.bootstrap import bootstrap_weights
from training.common.errors import UserError
from training.common.library_defaults import library_defaults
from training.common.progress import progress_bar
from training.config.config import stream_seed
from training.model.sites import Sites
from training.model.transformer import EVERY, Transformer, project
from training.tasks.function_classes import choose_classes

ALL = "all"
"""The receiver of the senders' whole effect: everything that reads them."""
NMSE = ("nmse", "nmse_low", "nmse_high")


@dataclass(frozen=True, repr=False, eq=False)
class PathEffects(Result):
    """The effects of paths.

    Attributes:
        checkpoint: the model's name.
        step: of its training.
        table: one row per function class, sender set and receiver set: `effect` with its 95 % interval over prompts
            (0: nothing happened, 1: as if everything had been patched), `share`, the effect over that of the senders
            through everything (receiver `all`), with its interval, none where they have no effect, and `nmse`, the
            error to the clean answer.
        question: prompts and direction.
        ends: one row per class: errors of the clean and the corrupt run and of the no-context optimum.
    """

    checkpoint: str
    step: int
    table: pd.DataFrame
    question: Question
    ends: pd.DataFrame

    @property
    def files(self) -> Mapping[str, pd.DataFrame]:
        return {"paths": self.table, "paths_ends": self.ends}


@library_defaults()
def path_effects(
    checkpoint: Checkpoint,
    senders: Sequence[HeadSet],
    receivers: Sequence[tuple[Receiver, ...]],
    classes: str | Sequence[str] | None = None,
    *,
    corrupt: str = "prompt",
    direction: str = "noise",
    examples: int | None = None,
    n_prompts: int = 1024,
    seed: int = 0,
) -> PathEffects:
    """Patch the paths from every set of senders to every set of receivers that reads it.

    Args:
        checkpoint: a loaded run.
        senders: sets of heads and MLPs, or `interp.model.heads.EMBED`; those of a set write together.
        receivers: sets of inputs (`interp.patching.path_receivers`); those of a set see the change together.
        classes: function classes; None takes those of the run.
        corrupt: a name in `interp.patching.prompt_pairs.CORRUPTIONS`.
        direction: `noise` lets the senders write what they write in the corrupt run, `denoise` the other way.
        examples: pairs before the query; None takes as many as there are.
        n_prompts: per class.
        seed: of prompts and resampling.

    Raises:
        CheckError: a patch did not act, or acted where it should not.
        UserError: an unknown name, or no receiver reads any of the senders.
    """
    names = choose_classes(classes, checkpoint.config.evaluated_classes)
    question = Question(corrupt, check_direction(direction), examples, n_prompts, seed)
    bundles = bundles_of(senders, receivers)
    jobs = [job for bundle in bundles for job in bundle.jobs]
    prepare = changed_inputs(bundles)
    rows, ends = [], []
    with progress_bar(total=len(names) * sum(map(len, jobs)), desc="paths", unit="path") as bar:
        for name in names:
            found = patch_sweep(checkpoint, name, question, jobs, prepare, bar)
            ends.append(end_row(name, found.outcomes))
            about = {"function_class": name, "corrupt": corrupt, "direction": direction}
            rows += [about | row for row in path_rows(bundles, found.outcomes, name, question)]
    return PathEffects(checkpoint.name, checkpoint.step, pd.DataFrame(rows), question, pd.DataFrame(ends))


class Bundle(NamedTuple):
    """The paths from one set of senders."""

    senders: HeadSet
    receivers: list[tuple[Receiver, ...]]

    @property
    def jobs(self) -> list[list[Variant]]:
        """The senders' outputs for everyone to see, then the inputs of each set of receivers."""
        everyone = tuple(output_of(sender) for sender in self.senders)
        return [[everyone], *([inputs_of(to) for to in alike] for alike in self.alike)]

    @property
    def alike(self) -> list[list[tuple[Receiver, ...]]]:
        """The sets of receivers in their order, cut where what is patched in differs: single receivers, which see the
        senders' change alone, can be run together; those of a larger set see what the others of the set make of it.
        """
        return [list(group) for _, group in groupby(self.receivers, key=lambda to: to if len(to) > 1 else ())]

    @property
    def names(self) -> list[str]:
        return [ALL, *(",".join(map(str, to)) for to in self.receivers)]


def bundles_of(senders: Sequence[HeadSet], receivers: Sequence[tuple[Receiver, ...]]) -> list[Bundle]:
    """The paths that exist.

    Raises:
        UserError: no receiver reads any of the senders.
    """
    bundles = [Bundle(one, [to for to in receivers if all_read(to, one)]) for one in senders]
    bundles = [bundle for bundle in bundles if bundle.receivers]
    if not bundles:
        raise UserError(f"no such path: nothing in --to reads what {', '.join(map(show, senders))} writes")
    return bundles


def all_read(receivers: tuple[Receiver, ...], senders: HeadSet) -> bool:
    """Whether every receiver reads any of the senders."""
    return all(any(receiver.reads(sender) for sender in senders) for receiver in receivers)


def output_of(sender: Head) -> Patch:
    """What a sender writes, as a patch."""
    if sender == EMBED:
        return Patch("resid_pre", 0)
    return Patch("mlp_out", sender.layer) if sender.number == MLP else Patch("z", sender.layer, (sender.number,))


def inputs_of(receivers: tuple[Receiver, ...]) -> Variant:
    """What a set of receivers read, as patches."""
    return tuple(receiver.patch() for receiver in receivers)


def changed_inputs(bundles: Sequence[Bundle]) -> Prepare:
    """For every job, the senders' outputs in the source run, or what each input makes of these alone."""

    def prepare(
        model: Transformer, own: Float[Tensor, "batch pos dim"], other: Float[Tensor, "batch pos dim"]
    ) -> Iterator[Given]:
        written = [(layer, site) for layer in range(model.config.n_layers) for site in ("z", "mlp_out")]
        base, source = (recorded(model, tokens, [(0, "resid_pre"), *written]) for tokens in (own, other))
        for bundle in bundles:
            yield source
            change = written_change(model, base, source, bundle.senders)
            for alike in bundle.alike:
                together = alike[0] if len(alike[0]) > 1 else ()
                yield input_values(model, base[0, "resid_pre"], change, inputs_of(together))

    return prepare


Change = Mapping[Head, Float[Tensor, "batch pos d_model"]]


@torch.no_grad()
def written_change(model: Transformer, base: Given, source: Given, senders: HeadSet) -> Change:
    """What every sender writes in the source run, less what it writes in the base run."""
    changes = {}
    for sender in senders:
        patch = output_of(sender)
        key = (patch.layer, patch.site)
        change = source[key] - base[key]
        if patch.site == "z":
            change = change[:, :, sender.number] @ model.layers[sender.layer].attn.W_O[sender.number]
        changes[sender] = change
    return changes


@torch.no_grad()
def input_values(
    model: Transformer, resid_pre: Float[Tensor, "batch pos d_model"], change: Change, together: Variant = ()
) -> Given:
    """q, k and v of every head, mlp_out of every MLP and the final stream, when to what they read is added what the
    senders change.

    Args:
        model: the transformer.
        resid_pre: the first residual stream of the base run.
        change: what the senders change.
        together: inputs that see the change while the others are computed; all else is as in the base run.
    """
    given, resid, zero = {}, resid_pre, torch.zeros_like(resid_pre)
    of_heads, of_mlps = (
        patches_of(
            [tuple(one for one in together if one.site in sites)], resid.shape[1], model.config.n_heads, model.device
        )
        for sites in (INPUTS, ("mlp_out",))
    )
    for layer, block in enumerate(model.layers):
        earlier = sum((written for sender, written in change.items() if sender.layer < layer), zero)
        normalized, attn = block.ln1(resid + earlier), block.attn
        for name, weight, bias in (("q", attn.W_Q, attn.b_Q), ("k", attn.W_K, attn.b_K), ("v", attn.W_V, attn.b_V)):
            given[layer, name] = project(normalized, weight, bias)
        z = block.mix(resid, Sites(of_heads.edits(layer, 0, EVERY, given)))
        resid = resid + attn.write(z)
        beside = sum((change[one] for one in change if one.layer == layer and one.number != MLP), earlier)
        given[layer, "mlp_out"] = block.mlp_out(resid + beside)
        resid = block.transform(resid, Sites(of_mlps.edits(layer, 0, EVERY, given)))
    given[model.config.n_layers - 1, "resid_post"] = resid + sum(change.values(), zero)
    return given


def path_rows(bundles: Sequence[Bundle], outcomes: Outcomes, name: str, question: Question) -> Iterator[dict[str, Any]]:
    """One row per path of one class."""
    rng = np.random.default_rng(stream_seed("bootstrap", question.seed, name))
    weights = bootstrap_weights(len(outcomes.answer), rng)
    base, source = question.ends(outcomes)
    effects = effect_of(outcomes.patched, base, source, weights)
    resamples = effect_resamples(outcomes.patched, base, source, weights) if gap_exists(base, source) else None
    nmse = with_intervals(np.square(outcomes.patched - outcomes.answer) / outcomes.unit, weights)
    whole = 0
    for bundle in bundles:
        for place, receiver in enumerate(bundle.names, start=whole):
            effect, share = effects[place], UNDEFINED
            base_effect = effects[whole]
            if (
                resamples is not None
                and abs(base_effect.value) > TIE
                and differs_from_zero(base_effect.ci_low, base_effect.ci_high)
            ):
                share = interval_of(effect.value / base_effect.value, resamples[:, place] / resamples[:, whole])
            yield (
                {"sender": show(bundle.senders), "receiver": receiver}
                | {"effect": effect.value, "ci_low": effect.ci_low, "ci_high": effect.ci_high}
                | {"share": share.value, "share_low": share.ci_low, "share_high": share.ci_high}
                | {
                    key: float(values[place])
                    for key, values in zip(("nmse", "nmse_low", "nmse_high"), nmse, strict=True)
                }
            )
        whole += len(bundle.names)


def parse_senders(text: str, n_layers: int, n_heads: int, scores: Callable[[], Scores] | None = None) -> list[HeadSet]:
    """The sets of senders that `--from` names, as `--heads` does, or `embed`.

    `each` are the read-in, every head and every MLP, each alone.

    Raises:
        UserError: malformed, or no such component.

    >>> [show(one) for one in parse_senders("each", 1, 2)], parse_senders("embed", 1, 2)
    (['embed', '0.0', '0.1', '0.mlp'], [(Head(layer=-1, number=-2),)])
    """
    if text == "embed":
        return [(EMBED,)]
    if text == "each":
        components = [*all_heads(n_layers, n_heads), *(Head(layer, MLP) for layer in range(n_layers))]
        by_layer = sorted(components, key=lambda one: (one.layer, one.number == MLP, one.number))
        return [(EMBED,), *((one,) for one in by_layer)]
    return parse_heads(text, n_layers, n_heads, scores)
