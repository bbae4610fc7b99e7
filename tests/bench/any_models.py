"""How long it takes to remove every head of a deep model in turn: `interp.ablate` against a plain loop with hooks.

    python tests/bench/any_models.py                 # what `make bench` runs
    python tests/bench/any_models.py --layers 30 --json

1. Build a model of transformers (Llama, random weights) and random tokens.
2. Repeat: both ways remove every head once (zero ablation), in an order that rotates.
3. Report medians, ratios within a repetition, and how far the losses are apart.

Seconds are of the processor, so that other processes on the machine hardly count.
"""

import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from interp.any_model.ablate import Replacements, measure, modes_called
from interp.any_model.attach import attach
from interp.model.heads import all_heads
from training import options
from training.common import output
from training.common.terminal import echo

AHEAD = 1.8  # times the plain loop, over 30 layers: what this project promises
SAME = 1e-5  # relative
VOCABULARY, POSITIONS = 512, 48


def build(n_layers: int, n_heads: int) -> LlamaForCausalLM:
    """A model with three query heads to a key-value head, as SmolLM2-135M has, of a third of its width."""
    sizes: dict[str, Any] = {
        "hidden_size": 24 * n_heads,
        "intermediate_size": 64 * n_heads,
        "num_key_value_heads": n_heads // 3,
    }
    config = LlamaConfig(
        vocab_size=VOCABULARY, num_hidden_layers=n_layers, num_attention_heads=n_heads, use_cache=False, **sizes
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config).eval()


def losses(result: object, ids: Tensor) -> Tensor:
    """Mean cross-entropy of each sequence."""
    logits = result.logits[:, :-1].transpose(1, 2)  # type: ignore[attr-defined]
    return functional.cross_entropy(logits, ids[:, 1:], reduction="none").mean(1)


@contextmanager
def zeroed(module: torch.nn.Module, start: int, stop: int):
    """One head's part of a projection's input set to zero."""

    def hook(_module: torch.nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        z = args[0].clone()
        z[..., start:stop] = 0
        return (z,)

    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def loop(model: Any, ids: Tensor, n_heads: int) -> np.ndarray:
    """Every head removed by a hook, in a pass of its own over all examples."""
    rows = []
    for layer in model.model.layers:
        width = layer.self_attn.o_proj.in_features // n_heads
        for head in range(n_heads):
            with zeroed(layer.self_attn.o_proj, head * width, (head + 1) * width):
                rows.append(losses(model(ids), ids).double().numpy())
    return np.stack(rows)


def timed(function: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    """(seconds of the processor, result)."""
    began = time.process_time()
    result = function()
    return time.process_time() - began, result


def bench(
    layers: Annotated[int, typer.Option("--layers", help="Layers of the model.")] = 30,
    heads: Annotated[int, typer.Option("--heads", help="Heads per layer, a multiple of 3.")] = 9,
    examples: Annotated[int, typer.Option("--examples", help="Sequences.")] = 16,
    repetitions: Annotated[int, typer.Option("--repetitions", help="Of both ways.")] = 3,
    json: options.Json = False,
) -> None:
    """Time the removal of every head against a plain loop with hooks.

    Exits with 1 if losses differ or ours is not ahead by as much as is promised.
    """
    model = build(layers, heads)
    ids = torch.randint(0, VOCABULARY, (examples, POSITIONS), generator=torch.Generator().manual_seed(0))
    task = attach(model, ids, losses, reference=ids).task
    sets = [(head,) for head in all_heads(layers, heads)]

    def ours() -> np.ndarray:
        measured = measure(task, sets, Replacements(task, modes_called(["zero"]), 0))
        return np.stack([measured.without["zero"][heads] for heads in sets])

    def theirs() -> np.ndarray:
        return loop(model, ids, heads)

    seconds: dict[str, list[float]] = {"ours": [], "loop": []}
    results: dict[str, np.ndarray] = {}
    task.moments  # noqa: B018 - measured once for all sets and modes
    for repetition in range(repetitions):
        ways = {"ours": ours, "loop": theirs}
        for name in list(ways) if repetition % 2 else list(ways)[::-1]:
            took, results[name] = timed(ways[name])
            seconds[name].append(took)
    ratios = [loop_took / own for loop_took, own in zip(seconds["loop"], seconds["ours"], strict=True)]
    difference = float(np.abs(results["ours"] / results["loop"] - 1).max())
    report: dict[str, Any] = {"layers": layers, "heads": heads, "examples": examples}
    report |= {"threads": torch.get_num_threads(), "seconds": seconds, "difference": difference}
    report |= {"ratio": statistics.median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios)}
    if json:
        output.print_json(report)
    else:
        rows = [[name, output.number(statistics.median(took))] for name, took in seconds.items()]
        caption = f"loop over ours {report['ratio']:.2f} [{report['ratio_low']:.2f}, {report['ratio_high']:.2f}]; "
        caption += f"losses differ by {difference:.0e}; {report['threads']} threads"
        output.print_table(f"Every head of {layers} x {heads} removed", ["way", "CPU seconds"], rows, caption)
    if difference > SAME or report["ratio"] < AHEAD:
        message = f"ratio {report['ratio']:.2f} (promised {AHEAD}), difference {difference:.1e} (allowed {SAME:g})"
        echo(f"bench: {message}", err=True)
        raise typer.Exit(1)


app = typer.Typer(pretty_exceptions_enable=False)
app.command()(bench)

if __name__ == "__main__":
    app()
