"""Do retrospective heads cause in-context learning, in every model, and how good a guide is the attention pattern?

1. Locate: heads whose score exceeds `ATTENDS` on selection prompts, in every model.
2. Remove them together, under several replacements, against layer-matched sets; and keep them alone.
3. Pool over independent seeds, per curriculum (`interp.statistics.seeds`).
4. Where a model has several: what they cost together beside the sum of what each costs alone, since heads that stand in
   for one another look harmless one by one.
5. Dose and response: every head of every model removed alone, its effect beside its score; over heads that matter
   (effect above `MATTERS`), how many the pattern finds (recall), and how many of those it finds matter (precision).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analyses.comparison.groups import with_all
from analyses.findings import Findings
from interp.ablation.ablate import Ablation, ablate, ablate_or_reasons
from interp.ablation.modes import DEFAULT_MODES
from interp.ablation.pooled import pooled
from interp.ablation.size_classes import ATTENDS, HALF
from interp.ablation.verdict import pooled_verdict
from interp.display.axes import GREY, MODES, NULL, figure_of, grid_of_axes, legend_beside, row_of_axes
from interp.display.text import counted, listed
from interp.model.heads import HeadSet, all_heads, heads_above, show
from interp.scores.score import score, selection_scores
from interp.statistics.agreement import spearman
from interp.statistics.effects import SIGNIFICANT, differs_from_zero
from interp.statistics.seeds import independent_seeds, seed_mean
from training.checkpoints.checkpoint import Checkpoint
from training.common.output import interval, number, records
from training.common.progress import progress_bar
from training.common.table_rows import distinct, where
from training.options import DEFAULT_CONTROLS

QUESTION = "Do retrospective heads cause in-context learning, in every model that has them?"
MATTERS = 0.1
"""The share of the in-context gain from which on a single head counts as one that matters."""
LEVELS = (MATTERS, HALF)
PAPER: Mapping[str, float] = {"linear": 1.06, "quadratic": 1.11, "cubic": 1.41}
"""Effect of zeroing the seven heads of the published mixed model (paper.md, section 9.3), beside 0.03, 0.01, 0.01."""


@dataclass(frozen=True)
class Subject:
    """What was measured on one model.

    Attributes:
        checkpoint: the model.
        found: its retrospective heads; may be empty.
        removed: their joint removal; None without any.
        kept: the removal of all others; None without any.
        heads: one row per head and class: `score` with its interval, `effect` of removing it alone with its interval
            and `note`, why there is none.
        failures: which heads were left out because a self-check failed for them.
    """

    checkpoint: Checkpoint
    found: HeadSet
    removed: Ablation | None
    kept: Ablation | None
    heads: pd.DataFrame
    failures: list[str]


def study(checkpoints: Sequence[Checkpoint], *, n_prompts: int = 1024, seed: int = 0) -> Findings:
    """Run the study on any number of models.

    Args:
        checkpoints: loaded runs.
        n_prompts: per class and stream.
        seed: of prompts, null sets and resampling.
    """
    bar = progress_bar(checkpoints, desc="cause", unit="model")
    subjects = [examine(checkpoint, n_prompts, seed) for checkpoint in bar]
    models = pd.concat([of_model(one) for one in subjects], ignore_index=True)
    heads = pd.concat([one.heads for one in subjects], ignore_index=True)
    with_heads = [one for one in subjects if one.found]
    effects = pool(with_heads, kept=False)
    keeps = pool(with_heads, kept=True)
    several, guide = together(with_heads), guides(subjects)
    return Findings(
        QUESTION,
        [
            *located(subjects),
            *removal_verdicts(effects),
            *keep_sentences(keeps),
            *together_sentences(several),
            *guide_sentences(guide),
        ],
        {
            "checkpoints": [one.checkpoint.name for one in subjects],
            "independent seeds": len(independent_seeds(checkpoints)),
            "prompts": n_prompts,
            "seed": seed,
            "controls": DEFAULT_CONTROLS,
            "modes": list(DEFAULT_MODES),
            "score above": ATTENDS,
            "a head matters above": MATTERS,
        },
        {"models": models, "pooled": effects, "kept": keeps, "together": several, "heads": heads, "guide": guide},
        shown(effects, keeps, guide),
        {
            "effects": partial(plot_effects, models),
            "dose_response": partial(plot_dose_response, heads),
        },
        [failure for one in subjects for failure in one.failures],
    )


def examine(checkpoint: Checkpoint, n_prompts: int, seed: int) -> Subject:
    """Locate, remove and keep the retrospective heads of one model, and remove each head alone."""
    config = checkpoint.config
    found = heads_above(ATTENDS, selection_scores(checkpoint, n_prompts, seed))
    carry_out = partial(ablate_or_reasons, checkpoint, [found], n_controls=DEFAULT_CONTROLS)
    carry_out = partial(carry_out, n_prompts=n_prompts, seed=seed)
    removed, kept, reasons = None, None, list[str]()
    if found:
        removed, reasons = carry_out()
        kept, others = carry_out(matches=("layer",), design="keep")
        reasons = list(dict.fromkeys([*reasons, *others]))
    every = [(head,) for head in sorted(all_heads(config.model.n_layers, config.model.n_heads))]
    alone = ablate(checkpoint, every, modes=["mean"], n_controls=0, n_prompts=n_prompts, seed=seed)
    scores = score(checkpoint, config.evaluated_classes, n_prompts=n_prompts, seed=seed).table
    scores["heads"] = [f"{layer}.{head}" for layer, head in zip(scores["layer"], scores["head"], strict=True)]
    names = {"value": "score", "ci_low": "score_low", "ci_high": "score_high"}
    scores = scores.drop(columns="score").rename(columns=names)
    heads = scores[["heads", "function_class", "score", "score_low", "score_high", "chance"]].merge(
        alone.table[["heads", "function_class", "points", "mode", "effect", "ci_low", "ci_high", "note"]]
    )
    return Subject(checkpoint, found, removed, kept, with_model(heads, checkpoint), [*reasons, *alone.failures])


def with_model(table: pd.DataFrame, checkpoint: Checkpoint) -> pd.DataFrame:
    """The table with the model that it is about in front."""
    about = {"checkpoint": checkpoint.name, "step": checkpoint.step, "curriculum": checkpoint.config.curriculum}
    return pd.concat([pd.DataFrame(about, index=table.index), table], axis=1)


def of_model(one: Subject) -> pd.DataFrame:
    """The joint removal of one model's heads, a row per class and mode; empty without heads."""
    parts = [part.table.assign(design=part.design) for part in (one.removed, one.kept) if part is not None]
    return with_model(pd.concat(parts, ignore_index=True), one.checkpoint) if parts else pd.DataFrame()


def curriculum_of(one: Subject) -> str:
    return one.checkpoint.config.curriculum


def pool(subjects: Sequence[Subject], *, kept: bool) -> pd.DataFrame:
    """Effects over independent seeds, by curriculum (`interp.ablation.pooled.pooled`)."""
    what = "the set of all other heads" if kept else "the set of retrospective heads"
    parts = []
    with_effects = [(one, part) for one in subjects if (part := one.kept if kept else one.removed) is not None]
    for name, group in with_all(with_effects, lambda pair: curriculum_of(pair[0])):
        ablations = [part for _, part in group]
        rows = pooled([one.checkpoint for one, _ in group], ablations, [one.found for one, _ in group], what)
        rows.insert(0, "curriculum", name)
        parts.append(rows)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def together(subjects: Sequence[Subject]) -> pd.DataFrame:
    """One row per model with several retrospective heads and class with a clear gain: the `effect` of removing them
    together, the sum of what each costs alone, `sum_alone`, and the `excess` of the first (mean ablation)."""
    rows = []
    for one in subjects:
        if one.removed is None or len(one.found) < 2:
            continue
        for row in records(where(one.removed.table, mode="mean").dropna(subset=["effect"])):
            name = row["function_class"]
            of_class, own = records(where(one.heads, function_class=name)), {str(head) for head in one.found}
            alone = sum(head["effect"] for head in of_class if head["heads"] in own)
            about = {"checkpoint": one.checkpoint.name, "heads": row["heads"], "function_class": name}
            rows.append(about | {"effect": row["effect"], "sum_alone": alone, "excess": row["effect"] - alone})
    columns = ["checkpoint", "heads", "function_class", "effect", "sum_alone", "excess"]
    return pd.DataFrame(rows, columns=columns)


def guides(subjects: Sequence[Subject]) -> pd.DataFrame:
    """How well the score of a head tells its effect, by class and by the effect from which on a head matters (`level`).

    Columns: `spearman` over the heads of a model, mean over independent seeds with its t-interval; over all heads of
    all models `n_matter` (effect above `level`), `n_attend` (score above `ATTENDS`), `n_both`, `precision`, `recall`.
    Models without a clear in-context gain on a class are left out; `n_models` are left.
    """
    rows = []
    for name in dict.fromkeys(name for one in subjects for name in distinct(one.heads, "function_class")):
        used = [(one.checkpoint, of_class) for one in subjects if len(of_class := measured(one.heads, name))]
        about: dict[str, Any] = {"function_class": name, "n_models": len(used)}
        if not used:
            rows += [about | {"level": level} for level in LEVELS]
            continue
        rank = seed_mean([checkpoint for checkpoint, _ in used], [rank_correlation(heads) for _, heads in used])
        heads = [head for _, of_model in used for head in records(of_model)]
        attend = [head["score"] > ATTENDS for head in heads]
        for level in LEVELS:
            matter = [head["effect"] > level for head in heads]
            both = sum(m and a for m, a in zip(matter, attend, strict=True))
            counts = {"n_heads": len(heads), "n_matter": sum(matter), "n_attend": sum(attend), "n_both": both}
            shares = {"precision": share(both, sum(attend)), "recall": share(both, sum(matter))}
            rows.append(about | {"level": level} | rank.named("spearman") | counts | shares)
    return pd.DataFrame(rows)


def measured(heads: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of a class whose effect is defined."""
    return where(heads, function_class=name).dropna(subset=["effect"])


def rank_correlation(heads: pd.DataFrame) -> float:
    """Spearman of score and effect; NaN where no effect differs from 0, so that their ranks are noise."""
    if not differs_from_zero(heads["ci_low"].to_numpy(), heads["ci_high"].to_numpy()).any():
        return float("nan")
    return float(spearman(heads["score"].to_numpy(), heads["effect"].to_numpy()))


def share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")


def located(subjects: Sequence[Subject]) -> list[str]:
    """How many models have retrospective heads, and which have none."""
    found = [f"{one.checkpoint.name} {show(one.found)}" for one in subjects if one.found]
    without = [one.checkpoint.name for one in subjects if not one.found]
    text = f"Heads with a score above {ATTENDS} are in {len(found)} of {counted(len(subjects), 'model')}"
    text += f": {'; '.join(found)}" if found else ""
    return [text + (f". None in {', '.join(without)}." if without else ".")]


def removal_verdicts(effects: pd.DataFrame) -> list[str]:
    """By curriculum, what removing the heads costs, and whether that is what the paper found."""
    found = []
    for name, rows in groups_of(effects):
        found.append(f"{name}: {pooled_verdict(rows)} {against_the_paper(rows)}".strip())
    return found


def against_the_paper(rows: pd.DataFrame) -> str:
    """Rule: agrees on a class where the mean effect is at least `HALF` of the gain and beats matched sets (Holm)."""
    mean = [row for row in records(rows) if row["mode"] == "mean" and row["function_class"] in PAPER and row["n_seeds"]]
    agree = [row["function_class"] for row in mean if row["effect"] >= HALF and row["p_holm"] <= SIGNIFICANT]
    others = [row["function_class"] for row in mean if row["function_class"] not in agree]
    theirs = listed([f"{name} ({PAPER[name]:.2f} there)" for name in agree])
    text = f"Agrees with the paper on {theirs}." if agree else ""
    if others:
        text += f" Not shown on {', '.join(others)} (less than {HALF} of the gain, or no more than matched sets cost)."
    return text.strip()


def groups_of(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    if len(table):
        for name in distinct(table, "curriculum"):
            yield name, where(table, curriculum=name)


def keep_sentences(keeps: pd.DataFrame) -> list[str]:
    """What the heads can do alone."""
    parts = []
    for name, rows in groups_of(keeps):
        cells = [row for row in records(rows) if row["mode"] == "mean" and row["n_seeds"]]
        left = ", ".join(f"{1 - row['effect']:.2f} on {row['function_class']}" for row in cells)
        parts += [f"{name} {left}"] if left else []
    text = f"With no other head, what is left of the in-context gain (mean ablation): {'; '.join(parts)}"
    return [f"{text}: the heads are not enough by themselves where this is near or below 0."] if parts else []


def together_sentences(several: pd.DataFrame) -> list[str]:
    """Whether heads stand in for one another: together they cost more than the sum of what each costs alone."""
    rows = records(several)
    if not rows:
        return []
    more = [row for row in rows if row["excess"] > MATTERS]
    models = listed(distinct(several, "checkpoint"))
    text = f"Where a model has several such heads ({models}), removing them together costs more than the sum of what "
    text += f"each costs alone (by more than {MATTERS} of the gain) in {len(more)} of {counted(len(rows), 'case')}"
    if more:
        most = max(more, key=lambda row: row["excess"])
        text += f", most in {most['checkpoint']} on {most['function_class']} ({most['effect']:.2f} against "
        text += f"{most['sum_alone']:.2f}): they stand in for one another, and single removals cannot see it"
    return [text + "."]


def guide_sentences(guide: pd.DataFrame) -> list[str]:
    """How good a guide the pattern is."""
    found = []
    for name in distinct(guide, "function_class"):
        rows = records(where(guide, function_class=name))
        first = rows[0]
        if not first["n_models"]:
            continue
        text = f"On {name}, score and effect of single heads rank alike with {first['spearman']:.2f}"
        if first["n_seeds"] > 1:
            text += f" (t-interval over {first['n_seeds']} seeds [{first['t_low']:.2f}, {first['t_high']:.2f}])"
        cost = [f"{row['n_both']} cost more than {row['level']} of the gain" for row in rows]
        text += f"; of {first['n_attend']} heads that score above {ATTENDS} {' and '.join(cost)}; "
        caught = [f"{row['n_both']} of the {row['n_matter']} that cost more than {row['level']}" for row in rows]
        found.append(f"{text}the pattern finds {' and '.join(caught)}.")
    return found


def shown(effects: pd.DataFrame, keeps: pd.DataFrame, guide: pd.DataFrame) -> Mapping[str, pd.DataFrame]:
    """Tables for people."""
    columns = {"heads removed": effects, "heads kept": keeps}
    tables = {f"{title}: share of the in-context gain lost": cells_of(table) for title, table in columns.items()}
    rows = [
        {
            "class": row["function_class"],
            "matters above": number(row["level"], 1),
            "models": str(row["n_models"]),
            "Spearman": interval(row["spearman"], row["t_low"], row["t_high"]),
            "precision": number(row["precision"], 2),
            "recall": number(row["recall"], 2),
        }
        for row in records(guide)
        if row["n_models"]
    ]
    tables["score as a guide to effect"] = pd.DataFrame(rows)
    return {title: table for title, table in tables.items() if len(table)}


def cells_of(table: pd.DataFrame) -> pd.DataFrame:
    """One row per curriculum and class, the pooled effect with its t-interval by mode."""
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for row in records(table):
        key = (row["curriculum"], row["function_class"])
        cell = interval(row["effect"], row["t_low"], row["t_high"])
        rows.setdefault(key, {"curriculum, class": ", ".join(key), "seeds": str(row["n_seeds"])})[row["mode"]] = cell
        if row["mode"] == "mean":
            rows[key]["p, Holm"] = number(row["p_holm"])
    return pd.DataFrame(rows.values())


def plot_effects(models: pd.DataFrame) -> list[Axes]:
    """What removing every model's heads costs, a column per class, by curriculum and mode; bars are matched sets."""
    removed = where(models, design="remove") if len(models) else models
    names, curricula = distinct(removed, "function_class"), distinct(removed, "curriculum")
    axes = row_of_axes(max(1, len(names)), width=3.2, height=2.8)
    for ax, name in zip(axes, names, strict=False):
        for offset, mode in zip((-0.2, 0, 0.2), DEFAULT_MODES, strict=True):
            rows = records(where(removed, function_class=name, mode=mode))
            xs = np.array([curricula.index(row["curriculum"]) + offset for row in rows])
            ax.plot(xs, [row["effect"] for row in rows], "o", ms=4, alpha=0.7, color=MODES[mode], label=mode)
            if mode == "mean":
                ax.plot(xs, [row["control_effect"] for row in rows], "_", ms=9, color=GREY, label="matched sets")
        for level in (0, 1):
            ax.axhline(level, color=NULL, lw=0.8, zorder=0)
        ax.set(title=name, xticks=range(len(curricula)), xlim=(-0.5, len(curricula) - 0.5))
        ax.set_xticklabels(curricula, rotation=30, ha="right")
    axes[0].set_ylabel("share of the\nin-context gain lost")
    legend_beside(axes)
    return axes


def plot_dose_response(heads: pd.DataFrame) -> list[Axes]:
    """Effect against score, a dot per head and model, a row per curriculum, a column per class."""
    curricula, names = distinct(heads, "curriculum"), distinct(heads, "function_class")
    grid = grid_of_axes(len(curricula), len(names), width=2.4, height=1.9)
    for row, curriculum in zip(grid, curricula, strict=True):
        for ax, name in zip(row, names, strict=True):
            cell = records(where(heads, curriculum=curriculum, function_class=name))
            scores, effects = ([head[column] for head in cell] for column in ("score", "effect"))
            if np.isnan(effects).all():
                ax.text(
                    0.5, 0.5, "no clear in-context gain", transform=ax.transAxes, ha="center", fontsize=7, color=GREY
                )
                ax.set_yticks([])
            ax.plot(scores, effects, "o", ms=3, alpha=0.5, color=MODES["mean"], mec="none")
            ax.axhline(0, color=NULL, lw=0.8, zorder=0)
            ax.axvline(ATTENDS, color=NULL, lw=0.8, ls=":", zorder=0)
            ax.set(xlim=(0, 1))
            ax.set_title(f"{curriculum}, {name}", fontsize=8)
        row[0].set_ylabel("effect alone")
    for ax in grid[-1]:
        ax.set_xlabel("retrospective score")
    axes = [ax for row in grid for ax in row]
    figure_of(axes).suptitle("every head removed alone (mean ablation): effect against score", fontsize=10)
    return axes
