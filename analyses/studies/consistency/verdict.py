"""The verdict of the consistency study: sentences that follow from its tables by rule.

1. Curricula differ if Welch's interval over independent seeds excludes 0 and p stays below 0.05 after Holm; nothing is
   said about a curriculum with one seed.
2. Agreement between classes is learned if it exceeds that of the untrained twins: the interval of the difference lies
   above 0. It is high if at least `HIGH`, which is below the lowest of the paper's models with retrospective heads
   (0.91).
3. Heads coincide by number if p < 0.05 against random renumbering. Training gives independent models similar heads if
   the matched heads of trained models are more similar than those of their untrained twins: the jackknife interval of
   the difference lies above 0. Two models have more in common than a model has with heads drawn at random from the
   same layers of others if the interval of that difference lies above 0, too.
4. Initial maps predict the final heads of a run if their correlation with the last map of the same run exceeds that
   with the last maps of independent models: the t-interval over seeds of the difference lies above 0.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from analyses.studies.consistency.measures.attention import Model, Row
from analyses.studies.consistency.measures.between import (
    ALL_PAIRS,
    BOTH_RETROSPECTIVE,
    Coincidences,
    contrast_pairs,
    excess_rows,
    group_pairs,
)
from analyses.studies.consistency.measures.snapshots import settled_at
from analyses.studies.consistency.measures.within import MIXED, TOP, seed_means
from analyses.studies.consistency.tables import NAMES, bracketed, format_row
from analyses.studies.published import CLASSES, NEAR, published_maps
from interp.ablation.size_classes import ATTENDS
from interp.display.text import counted, listed
from interp.statistics.agreement import N_DRAWS, mean_over_pairs, pearson
from interp.statistics.effects import SIGNIFICANT
from interp.statistics.p_values import p_text
from interp.statistics.seeds import t_interval
from training.common.output import records
from training.common.table_rows import distinct, where

HIGH = 0.8
SETTLED = 0.9
COMPARED = ("spearman", "pearson", f"top{TOP}")
SENTENCES = {
    "no heads": "No model has a head above {threshold:g} on any class.",
    "heads": "{n_with} of {models} have a head above {threshold:g} on some class ({n_twins} of their untrained twins); "
    "it is the same set on every class in {counts} of these.",
    "curriculum": "{curriculum} ({seeds}{models}): between two classes the scores of all heads have Spearman "
    "{spearman}, Pearson {pearson}; untrained twins {twin_spearman} and {twin_pearson}. Of the {k} highest heads {top} "
    "are the same (chance {top_chance:.2f}, twins {twin_top:.2f}){heads}. Intervals are over {over}.",
    "none shared": "; no head is above {threshold:g}",
    "shared": "; of as many as are above {threshold:g}, {shared} (chance {chance:.2f}, twins {twin:.2f})",
    "training": "{statistic}: untrained models reach {level:.2f}; training raises it in {higher} and lowers it in "
    "{lower}.",
    "one model": "Where a curriculum has one model, its interval is over prompts and holds for that model only.",
    "no evidence": "A correlation between classes over all heads that untrained models reach as well is no evidence "
    "for heads that were learned.",
    "one curriculum": "All models are of one curriculum: nothing follows about others.",
    "contrast": "{reference} minus other curricula, {statistic} (p after Holm): {contrasts}.",
    "summary": "In these {comparisons} {reference} models agree between classes {trained}; minus the agreement of "
    "their untrained twins, {twins}.",
    "untested": "For {reference} against {others} there are not two independent seeds on both sides, or seeds do not "
    "differ: nothing follows about these curricula.",
    "paper": "Published maps, mean Pearson between classes: {with_heads}; without retrospective heads {without}: high "
    "in every converged model, so not specific to mixed. {here}",
    "no own": "No model here has such heads to compare.",
    "own": "The lowest value here of {models} with a head above {threshold:g} is {lowest:.2f} ({curriculum}): this "
    "{verdict}{rest}.",
    "rest": "; {models} without such a head reach {low:.2f} to {high:.2f}",
    "coincidence": "By number, heads above {threshold:g} of independent models {verb} with random renumbering within "
    "layers: {heads} in {n_sharing} of {pairs}, {expected:.1f} heads by chance ({p}). They lie in {layers}.",
    "not compared": "{pairs} of models differ in size or prompts and are not compared.",
    "matching": "By function, {models} ({pairs} of {n_seeds} seeds): heads matched within layers have a similarity of "
    "{matched:.2f} (cosine, at pairs and prompts that were not used to match them), heads of the same number "
    "{by_index:.2f}, heads matched at random {chance:.2f}; the excess of {excess:.2f} is {untrained:.2f} in the "
    "untrained twins (difference {learned}). Matched over all layers {model_matched:.2f}, at random "
    "{model_chance:.2f} (difference to the twins {model_learned}). {conclusion}",
    "few seeds": "Fewer than three seeds allow no interval: nothing follows.",
    "not learned": "The interval includes 0: it is not shown that training makes them similar.",
    "similar heads": "So training gives independent models similar heads; without the heads above {threshold:g} the "
    "excess is {rest:.2f}. {drawn}",
    "no pool": "Too few other models are left to draw heads from, so matched heads of two models are not compared "
    "with heads drawn from several.",
    "drawn heads": "Each model was also matched with composite models, whose heads are drawn at random from the same "
    "layers of the other models: matched heads have a similarity of {composite:.2f} there (real minus composite "
    "{difference}). {verdict}",
    "no more than drawn": "It is not shown that two real models have more heads in common than a real and a "
    "composite one.",
    "more than drawn": "Two real models have MORE heads in common than a real and a composite one.",
    "matched heads": "Within layers {n_matched} of at most {n_possible} heads above {threshold:g} are matched with one "
    "of the other model ({expected:.1f} at random; {pairs}).",
    "mixed pairs": "Among models with a head above {threshold:g}, matched heads of two mixed models are {verdict} "
    "similar than those of a mixed model and another one (difference {difference}, jackknife over seeds).",
    "single": "One model: nothing follows about others, nor about its curriculum.",
    "independent": "No two of these models share a seed of initialisation, data or task choice.",
    "streams": "WARNING: {pairs} of models share a stream of random numbers ({names}) and count as one seed each: the "
    "similarity of their heads of the same number exceeds that of random matchings by {excess:.2f}{independent}, and "
    "{n_shared} of {n_found} heads above {threshold:g} have the same number.",
    "independent excess": " (independent models {excess:.2f})",
    "no snapshots": "No checkpoint has earlier snapshots: nothing is said about training.",
    "initial maps": "At step 0 the maps of {runs} have Spearman {own:.2f} with the last maps of the same runs and "
    "{others:.2f} with those of independent models {difference}{heads}.",
    "initial heads": "; of the heads above {threshold:g} {own:.2f} are already the highest, of those of independent "
    "models {others:.2f} {difference}",
    "course": "{curriculum} ({runs} with snapshots): the first map has Spearman {first} with the last one; it stays at "
    "{level} or above {settled}{heads}.",
    "course heads": "; the heads above {threshold:g} are the highest ones permanently {settled}",
}


def say(name: str, **values: object) -> str:
    return SENTENCES[name].format(**{"threshold": ATTENDS} | values)


def heads_sentence(models: Sequence[Model], head_sets: pd.DataFrame) -> str:
    """In how many models the set above one half is the same on all classes, by curriculum."""
    with_heads = [model for model in models if model.retrospective_heads]
    if not with_heads:
        return say("no heads")
    counts = []
    for curriculum in dict.fromkeys(model.curriculum for model in with_heads):
        names = [model.checkpoint.name for model in with_heads if model.curriculum == curriculum]
        n_same = sum(len(set(where(head_sets, checkpoint=name)["found"])) == 1 for name in names)
        counts.append(f"{curriculum} {n_same} of {len(names)}")
    n_twins = sum(bool((model.untrained.maps > ATTENDS).any()) for model in with_heads)
    return say(
        "heads", n_with=len(with_heads), models=counted(len(models), "model"), n_twins=n_twins, counts=", ".join(counts)
    )


def within_sentences(curricula: pd.DataFrame, contrasts: pd.DataFrame, within: pd.DataFrame) -> list[str]:
    """Classes within a model: mixed against the others, against the paper, the effect of training, by curriculum."""
    return [
        *contrast_sentences(contrasts),
        paper_sentence(within),
        *training_sentences(curricula),
        *curriculum_sentences(curricula),
    ]


def curriculum_sentences(curricula: pd.DataFrame) -> list[str]:
    """The agreement between classes by curriculum."""
    names = distinct(curricula, "curriculum")
    return [curriculum_sentence(where(curricula, curriculum=name)) for name in names]


def curriculum_sentence(rows: pd.DataFrame) -> str:
    """The models of a curriculum, and their twins."""
    cells = {(row["state"], row["statistic"]): row for row in records(rows)}
    trained, top, shared = (cells["trained", name] for name in ("spearman", f"top{TOP}", "top_found"))
    several = trained["n_models"] != trained["n_seeds"]
    heads = say("none shared")
    if not math.isnan(shared["value"]):
        twin = cells["untrained", "top_found"]["value"]
        heads = say("shared", shared=format_row(shared), chance=shared["chance"], twin=twin)
    return say(
        "curriculum",
        curriculum=trained["curriculum"],
        seeds=counted(trained["n_seeds"], "independent seed"),
        models=f", {trained['n_models']} models" if several else "",
        spearman=format_row(trained),
        pearson=format_row(cells["trained", "pearson"]),
        twin_spearman=format_row(cells["untrained", "spearman"]),
        twin_pearson=format_row(cells["untrained", "pearson"]),
        k=TOP,
        top=format_row(top),
        top_chance=top["chance"],
        twin_top=cells["untrained", f"top{TOP}"]["value"],
        heads=heads,
        over=trained["over"],
    )


def training_sentences(curricula: pd.DataFrame) -> list[str]:
    """Rule 2: which statistics training raises, and in which curricula."""
    sentences = []
    for statistic in (*COMPARED, "top_found"):
        rows = records(where(curricula, state="difference", statistic=statistic))
        twins = where(curricula, state="untrained", statistic=statistic)["value"].dropna()
        if len(twins):
            higher = [row["curriculum"] for row in rows if row["ci_low"] > 0]
            lower = [row["curriculum"] for row in rows if row["ci_high"] < 0]
            names = {"higher": listed(higher), "lower": listed(lower)}
            sentences.append(say("training", statistic=NAMES[statistic], level=twins.mean(), **names))
    if not sentences:
        return []
    alone = [say("one model")] if "prompts" in distinct(curricula, "over") else []
    return [" ".join([*sentences, *alone, say("no evidence")])]


def contrast_sentences(contrasts: pd.DataFrame) -> list[str]:
    """Rule 1, a sentence per statistic, and whether mixed models agree more than others on any."""
    if not len(contrasts):
        return [say("one curriculum")]
    reference = contrasts["curriculum"].iloc[0]
    rows = {(row["state"], row["statistic"], row["other"]): row for row in records(contrasts)}
    compared = [row for (state, name, _), row in rows.items() if state == "trained" and name in COMPARED]
    tested = [row for row in compared if not math.isnan(row["ci_low"])]
    twins = [rows["difference", row["statistic"], row["other"]] for row in tested]
    sentences = []
    for name in COMPARED:
        texts = [format_contrast(*pair) for pair in zip(tested, twins, strict=True) if pair[0]["statistic"] == name]
        if texts:
            sentences.append(say("contrast", reference=reference, statistic=NAMES[name], contrasts="; ".join(texts)))
    if tested:
        directions = {"trained": format_directions(tested), "twins": format_directions(twins)}
        comparisons = counted(len(tested), "comparison")
        sentences.append(say("summary", comparisons=comparisons, reference=reference, **directions))
    untested = sorted({row["other"] for row in compared} - {row["other"] for row in tested})
    return [*sentences, *([say("untested", reference=reference, others=", ".join(untested))] if untested else [])]


def format_directions(rows: Sequence[Row]) -> str:
    """In which comparisons mixed models agree more, and in which less."""
    more, less = (
        [f"{NAMES[row['statistic']]} ({row['other']})" for row in rows if differs(row) and sign * row["difference"] > 0]
        for sign in (1, -1)
    )
    return f"MORE in {listed(more)}, LESS in {listed(less)}"


def format_contrast(row: Row, over_twins: Row) -> str:
    """One statistic between two curricula; where it differs, also minus that of the untrained twins."""
    text = f"{row['other']} {bracketed(row['difference'], row['ci_low'], row['ci_high'])} (p = {row['p_holm']:.2g}, "
    text += f"{row['n_seeds']} and {row['n_other']} seeds"
    if differs(row):
        verdict = "still DIFFERENT" if differs(over_twins) else "no difference"
        twins = bracketed(over_twins["difference"], over_twins["ci_low"], over_twins["ci_high"])
        text += f": DIFFERENT; minus the untrained twins {verdict}, {twins}"
    return text + ")"


def differs(row: Row) -> bool:
    """Rule 1."""
    return row["p_holm"] < SIGNIFICANT and not row["ci_low"] <= 0 <= row["ci_high"]


def paper_sentence(within: pd.DataFrame) -> str:
    """Is agreement high in every model with retrospective heads, whatever its curriculum, as in the published maps?"""
    published: dict[bool, list[str]] = {True: [], False: []}
    for model in published_maps():
        value = mean_over_pairs(pearson, np.stack([model.maps[name].ravel() for name in CLASSES]))
        has_head = any((model.maps[name] >= NEAR).any() for name in CLASSES)
        published[has_head].append(f"{model.curriculum} {float(value):.2f}")
    rows = records(where(within, classes="all", state="trained", statistic="pearson"))
    counts = {row["checkpoint"]: row["k"] for row in records(where(within, classes="all", statistic="top_found"))}
    own = [row for row in rows if counts[row["checkpoint"]]]
    rest = [row["value"] for row in rows if not counts[row["checkpoint"]]]
    here = say("no own")
    if own:
        lowest = min(own, key=lambda row: row["value"])
        without = say("rest", models=counted(len(rest), "model"), low=min(rest), high=max(rest)) if rest else ""
        here = say(
            "own",
            models=counted(len(own), "model"),
            lowest=lowest["value"],
            curriculum=lowest["curriculum"],
            verdict="agrees" if lowest["value"] >= HIGH else "DISAGREES",
            rest=without,
        )
    return say("paper", with_heads=", ".join(published[True]), without=", ".join(published[False]), here=here)


def number_sentences(models: Sequence[Model], counts: Coincidences) -> list[str]:
    """Rule 3, by number."""
    if not counts.n_pairs:
        return []
    layers = sorted({head.layer for model in models for head in model.retrospective_heads})
    return [
        say(
            "coincidence",
            verb="coincide MORE often than"
            if counts.p_value < SIGNIFICANT
            else "are not shown to coincide more often than",
            heads=counted(counts.n_heads, "head"),
            n_sharing=counts.n_sharing,
            pairs=counted(counts.n_pairs, "pair"),
            expected=counts.expected,
            p=p_text(counts.p_value, N_DRAWS),
            layers=f"{'layer' if len(layers) == 1 else 'layers'} {', '.join(map(str, layers))}",
        )
    ]


def function_sentences(models: Sequence[Model], pairs: pd.DataFrame, between: pd.DataFrame) -> list[str]:
    """Rule 3, by function."""
    trained = records(where(pairs, within="layer", state="trained")) if len(pairs) else []
    n_left_out = len(models) * (len(models) - 1) // 2 - len(trained)
    sentences = [say("not compared", pairs=counted(n_left_out, "pair"))] if n_left_out else []
    if not len(between):
        return sentences
    groups = {ALL_PAIRS: "independent models", BOTH_RETROSPECTIVE: f"independent models with a head above {ATTENDS:g}"}
    n_pairs = []
    for group, models_text in groups.items():
        cells = {(row["within"], row["measure"]): row for row in records(where(between, curricula=group))}
        if cells and cells["layer", "learned"]["n_pairs"] not in n_pairs:  # else they are the same pairs
            sentences.append(matching_sentence(cells, models_text))
            n_pairs.append(cells["layer", "learned"]["n_pairs"])
    return [*sentences, *matched_sentences(trained), *mixed_sentences(pairs)]


def matching_sentence(cells: Mapping[tuple[str, str], Row], models: str) -> str:
    """One group of pairs, matched within layers, and over all of them."""
    learned = cells["layer", "learned"]
    values = {name: cells["layer", name]["value"] for name in ("matched", "by_index", "chance")}
    return say(
        "matching",
        models=models,
        pairs=counted(learned["n_pairs"], "pair"),
        n_seeds=learned["n_seeds"],
        **values,
        excess=cells["layer", "matched_excess"]["value"],
        untrained=cells["layer", "untrained_excess"]["value"],
        learned=format_row(learned),
        model_matched=cells["model", "matched"]["value"],
        model_chance=cells["model", "chance"]["value"],
        model_learned=format_row(cells["model", "learned"]),
        conclusion=matching_conclusion(cells),
    )


def matching_conclusion(cells: Mapping[tuple[str, str], Row]) -> str:
    """Rule 3: whether training makes heads similar, and whether two models share more than with composites."""
    learned, beyond = cells["layer", "learned"], cells["layer", "beyond_kinds"]
    if math.isnan(learned["ci_low"]):
        return say("few seeds")
    if learned["ci_low"] <= 0:
        return say("not learned")
    text = say("no pool")
    if not math.isnan(beyond["ci_low"]):
        verdict = say("more than drawn" if beyond["ci_low"] > 0 else "no more than drawn")
        composite = cells["layer", "kinds"]["value"]
        text = say("drawn heads", composite=composite, difference=format_row(beyond), verdict=verdict)
    return say("similar heads", rest=cells["layer", "rest_excess"]["value"], drawn=text)


def matched_sentences(trained: Sequence[Row]) -> list[str]:
    """Whether heads above one half are matched with one of the other model."""
    rows = [row for row in trained if not row["same_stream"] and row["expected"]]
    sums = {name: sum(row[name] for row in rows) for name in ("n_matched", "n_possible", "expected")}
    return [say("matched heads", **sums, pairs=counted(len(rows), "pair"))] if rows else []


def mixed_sentences(pairs: pd.DataFrame) -> list[str]:
    """Whether two mixed models are more similar than a mixed one and another, among those with heads above one half."""
    rows = group_pairs(excess_rows(where(pairs, within="layer"))).get(BOTH_RETROSPECTIVE, [])
    estimate = contrast_pairs(rows, MIXED, "matched_excess")
    if math.isnan(estimate.low):
        return []
    verdict = "MORE" if estimate.low > 0 else "LESS" if estimate.high < 0 else "no more or less"
    return [say("mixed pairs", verdict=verdict, difference=bracketed(*estimate[:3]))]


def stream_sentences(models: Sequence[Model], pairs: pd.DataFrame) -> list[str]:
    """Which models are no independent evidence, and how similar they are by number."""
    if len(models) == 1:
        return [say("single")]
    if not len(pairs):
        return []
    rows = where(pairs, within="layer", state="trained")
    excess = rows["by_index"] - rows["chance"]
    same = records(where(rows, same_stream=True))
    if not same:
        return [say("independent")]
    labels = {model.checkpoint.name: model.label for model in models}
    names = ", ".join(f"{labels[row['checkpoint']]} & {labels[row['other']]}" for row in same[:6])
    more = f" and {len(same) - 6} more" if len(same) > 6 else ""
    related = rows["same_stream"].to_numpy(dtype=bool)
    other = say("independent excess", excess=excess[~related].mean()) if not related.all() else ""
    return [
        say(
            "streams",
            pairs=counted(len(same), "pair"),
            names=names + more,
            excess=excess[related].mean(),
            independent=other,
            n_shared=sum(row["n_coincide"] for row in same),
            n_found=sum(row["n_found"] for row in same),
        )
    ]


def snapshot_sentences(snapshots: pd.DataFrame) -> list[str]:
    """Whether the first snapshots predict the final heads, and from which step on runs have their final map."""
    if not len(snapshots):
        return [say("no snapshots")]
    runs = [where(snapshots, checkpoint=name).sort_values("step") for name in distinct(snapshots, "checkpoint")]
    sentences = initial_sentences([records(run)[0] for run in runs])
    for curriculum in distinct(snapshots, "curriculum"):
        own = [run for run in runs if run["curriculum"].iloc[0] == curriculum]
        first = seed_means([records(run)[0] for run in own], "spearman")
        heads = ""
        if any(np.isfinite(run["top_found"]).any() for run in own):
            heads = say("course heads", settled=format_settling(own, "top_found", 1.0))
        sentences.append(
            say(
                "course",
                curriculum=curriculum,
                runs=counted(len(own), "run"),
                first=bracketed(float(first.mean()), *t_interval(first)),
                level=SETTLED,
                settled=format_settling(own, "spearman", SETTLED),
                heads=heads,
            )
        )
    return sentences


def initial_sentences(first: Sequence[Row]) -> list[str]:
    """Rule 4, from the first snapshot of every run."""
    rows = [row for row in first if row["step"] == 0 and not math.isnan(row["others"])]
    if not rows:
        return []
    with_heads = [row for row in rows if not math.isnan(row["top_found"] + row["top_others"])]
    heads = say("initial heads", **compare_runs(with_heads, "top_found", "top_others")) if with_heads else ""
    runs = counted(len(rows), "run")
    return [say("initial maps", runs=runs, **compare_runs(rows, "spearman", "others"), heads=heads)]


def compare_runs(rows: Sequence[Row], own: str, others: str) -> dict[str, object]:
    """The means over seeds of two columns, and their difference in words."""
    values, other_values = seed_means(rows, own), seed_means(rows, others)
    return {"own": values.mean(), "others": other_values.mean(), "difference": format_difference(values - other_values)}


def format_difference(values: Float[np.ndarray, " seed"]) -> str:
    """The mean of paired differences with its t-interval, and whether it exceeds chance."""
    low, high = t_interval(values)
    verdict = ": MORE than chance" if low > 0 else ": LESS than chance" if high < 0 else ""
    return f"(difference {bracketed(float(values.mean()), low, high)}, t-interval over seeds{verdict})"


def format_settling(runs: Sequence[pd.DataFrame], column: str, level: float) -> str:
    """The median step over runs from which on a column stays at a level, with the range."""
    settled = [settled_at(run, column, level) for run in runs if np.isfinite(run[column]).any()]
    reached = sorted(step for step in settled if step is not None)
    if not reached:
        return "at no snapshot before the last"
    text = f"from step {np.median(reached):.0f} on"
    text += f" (median; {reached[0]} to {reached[-1]})" if len(reached) > 1 else ""
    n_missing = len(settled) - len(reached)
    return text + (f", not in {n_missing} of {len(settled)}" if n_missing else "")
