"""The ways to remove every head in turn that `ablations.py` compares: our sweep and two TransformerLens loops.

All replace one head's z at every token by the same per-position mean, for every head, on the same prompts, and give the
squared error of every prediction [head prompt point].

    ours     interp.ablation.runner.AblationRunner.run, as `interp ablate` calls it
    loop     HookedTransformer.run_with_hooks once for every head and batch, as its users write it
    suffix   the same from the head's layer on: `start_at_layer`, on resid_pre kept by run_with_cache once for all heads

The loops use the batch size that was fastest for them on this machine.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from measure import timed
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from interp.ablation.modes import MODES
from interp.ablation.runner import AblationProtocol, AblationRunner
from interp.model.heads import Head, all_heads, head_set
from interp.model.hooked_transformer import hooked
from interp.model.parallel import map_parts
from training.checkpoints.checkpoint import Checkpoint

NAME = "linear"  # the function class: all take the same arithmetic
BATCHES = (8, 32, 128, 512)  # prompts


class Task:
    """All single heads of one model on its test prompts; the sweep's references are made beforehand, for everyone."""

    def __init__(self, checkpoint: Checkpoint, n_prompts: int) -> None:
        n_points, model = checkpoint.config.data.n_points, checkpoint.config.model
        points = tuple(slice(point, point + 1) for point in range(n_points))
        self.sweep = AblationRunner(
            checkpoint, NAME, [MODES["mean"]], AblationProtocol(n_prompts, seed=0, ranges=points)
        )
        self.heads = sorted(all_heads(model.n_layers, model.n_heads))

    def chunk(self, prompts: range) -> tuple[Float[np.ndarray, "head prompt point"], Float[np.ndarray, "prompt point"]]:
        """The errors without each head, and the intact ones."""
        sets = [head_set([head]) for head in self.heads]
        with tqdm(disable=True) as bar:
            intact, pieces = self.sweep.run(prompts, [], sets, bar)
        return np.stack([pieces["mean", one].total for one in sets]), intact


class Ours:
    def __init__(self, task: Task) -> None:
        self.task = task

    def errors(self) -> Float[np.ndarray, "head prompt point"]:
        parts = map_parts(self.task.chunk, self.task.sweep.chunks())
        return np.concatenate([without for without, _ in parts], axis=1)


class Loop:
    """TransformerLens, one head and batch after the other; its best batch size is found first."""

    def __init__(self, task: Task) -> None:
        self.task, test = task, task.sweep.test
        self.model = hooked(task.sweep.model, str(test.tokens.device))
        self.x_tokens = task.sweep.model.x_tokens(test.tokens)
        fitting = [size for size in BATCHES if size < len(test.tokens)] + [len(test.tokens)]
        self.batch = min(fitting, key=self.seconds_per_prompt)

    def seconds_per_prompt(self, batch: int) -> float:
        """With this batch size, for the head that costs most."""
        tokens = self.task.sweep.test.tokens[:batch]
        work = partial(self.without, tokens, self.kept(tokens), self.task.heads[0])
        work()
        return timed(work, str(tokens.device)) / batch

    def errors(self) -> Float[np.ndarray, "head prompt point"]:
        return np.concatenate(list(self.batches()), axis=1)

    @torch.no_grad()
    def batches(self) -> Iterator[Float[np.ndarray, "head batch point"]]:
        test, unit = self.task.sweep.test, self.task.sweep.unit
        for tokens, ys in zip(test.tokens.split(self.batch), test.ys.split(self.batch), strict=True):
            kept = self.kept(tokens)
            predicted = torch.stack([self.without(tokens, kept, head) for head in self.task.heads])
            yield (predicted[:, :, self.x_tokens, 0] - ys).square().double().cpu().numpy() / unit

    def kept(self, tokens: Float[Tensor, "batch pos dim"]) -> Mapping[str, Tensor]:  # noqa: ARG002
        """What is computed once for all heads."""
        return {}

    def without(
        self, tokens: Float[Tensor, "batch pos dim"], kept: Mapping[str, Tensor], head: Head
    ) -> Float[Tensor, "batch pos 1"]:
        del kept
        return self.model.run_with_hooks(tokens, fwd_hooks=[self.hook(head)])

    def hook(self, head: Head) -> tuple[str, Callable[..., Tensor]]:
        layer, number = head
        mean = self.task.sweep.moments.mean[layer][0, :, number]

        def replace(z: Float[Tensor, "batch pos head d_head"], hook: Any) -> Float[Tensor, "batch pos head d_head"]:  # noqa: ARG001
            z[:, : len(mean), number] = mean  # the last y has none, as no prediction reads it
            return z

        return f"blocks.{layer}.attn.hook_z", replace


class Suffix(Loop):
    """The same from the head's layer on."""

    def kept(self, tokens: Float[Tensor, "batch pos dim"]) -> Mapping[str, Tensor]:
        return dict(self.model.run_with_cache(tokens, names_filter=lambda name: name.endswith("hook_resid_pre"))[1])

    def without(
        self, tokens: Float[Tensor, "batch pos dim"], kept: Mapping[str, Tensor], head: Head
    ) -> Float[Tensor, "batch pos 1"]:
        del tokens
        resid_pre = kept[f"blocks.{head.layer}.hook_resid_pre"]
        return self.model.run_with_hooks(resid_pre, start_at_layer=head.layer, fwd_hooks=[self.hook(head)])


SWEEPERS: Mapping[str, Callable[[Task], Ours | Loop]] = {"ours": Ours, "loop": Loop, "suffix": Suffix}


def sweep_flops(task: Task) -> int:
    """Floating-point operations of matrix products that our sweep carries out, as torch counts them."""
    first = next(iter(task.sweep.chunks()))
    with FlopCounterMode(display=False) as counter:
        task.chunk(first)
    return round(counter.get_total_flops() * task.sweep.protocol.n_prompts / len(first))
