"""What the tables of the consistency study show, in words, by rule.

1. Curricula differ if Welch's interval over independent seeds excludes 0 and p stays below 0.05 after Holm; with one
   seed on either side nothing is said about them.
2. Agreement between classes is learned if it exceeds that of the untrained twins: the interval of the difference lies
   above 0. It is high if at least `HIGH`, below the lowest of the paper's models that have retrospective heads (0.91).
3. Heads coincide by number if p < 0.05 against numbering them anew. Kinds of heads recur, beyond what untrained models
   allow, if the jackknife interval of the difference lies above 0; heads of two models correspond beyond that if they
   are more alike than those of a model and one put together from heads of others (the interval lies above 0).
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from analyses.studies.consistency.between import EVERYONE, FOUND, Coincidences, contrast_within, grouped, measured
from analyses.studies.consistency.tables import NAMES, bracketed
from analyses.studies.consistency.within import MIXED, TOP, Model, Row
from analyses.studies.published import CLASSES, NEAR, published_maps
from interp.ablation.size_classes import ATTENDS
from interp.display.text import counted, listed
from interp.statistics.agreement import N_DRAWS, mean_over_pairs, pearson
from interp.statistics.effects import SIGNIFICANT
from interp.statistics.p_values import p_text
from training.common.output import records
from training.common.table_rows import where

HIGH = 0.8
COMPARED = ("spearman", "pearson", f"top{TOP}")


def within(curricula: pd.DataFrame, contrasts: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """Classes within a model: by curriculum, mixed against the others, against the paper."""
    names = list(dict.fromkeys(curricula["curriculum"]))
    sentences = [of_curriculum(where(curricula, curriculum=name)) for name in names]
    return [*differences(contrasts), paper(table), *untrained(curricula), *sentences]


def of_curriculum(rows: pd.DataFrame) -> str:
    """One sentence on the models of a curriculum, and one on their twins."""
    cells = {(row["state"], row["statistic"]): row for row in records(rows)}
    trained, twin = cells["trained", "spearman"], cells["untrained", "spearman"]
    top, k_top = cells["trained", f"top{TOP}"], cells["untrained", f"top{TOP}"]
    found = cells["trained", "top_found"]
    text = f"{trained['curriculum']} ({counted(trained['n_seeds'], 'independent seed')}"
    text += f", {trained['n_models']} models): " if trained["n_models"] != trained["n_seeds"] else "): "
    text += f"between two classes the scores of all heads have Spearman {estimate(trained)}, Pearson "
    text += f"{estimate(cells['trained', 'pearson'])}; untrained twins {estimate(twin)} and "
    text += f"{estimate(cells['untrained', 'pearson'])}. Of the {TOP} highest heads {estimate(top)} are the same "
    text += f"(chance {top['chance']:.2f}, twins {k_top['value']:.2f})"
    if math.isnan(found["value"]):
        return f"{text}; no head is above {ATTENDS:g}. Intervals are over {trained['over']}."
    text += f"; of as many as are above {ATTENDS:g}, {estimate(found)} (chance {found['chance']:.2f}, twins "
    return f"{text}{cells['untrained', 'top_found']['value']:.2f}). Intervals are over {trained['over']}."


def untrained(curricula: pd.DataFrame) -> list[str]:
    """Rule 2: which statistics training raises, and in which curricula."""
    sentences = []
    for statistic in ("spearman", "pearson", f"top{TOP}", "top_found"):
        rows = records(where(curricula, state="difference", statistic=statistic))
        twins = records(where(curricula, state="untrained", statistic=statistic))
        higher = [row["curriculum"] for row in rows if row["ci_low"] > 0]
        lower = [row["curriculum"] for row in rows if row["ci_high"] < 0]
        level = np.nanmean([row["value"] for row in twins]) if any(row["n_seeds"] for row in twins) else math.nan
        if math.isnan(level):
            continue
        text = f"{NAMES[statistic]}: untrained models reach {level:.2f}; training raises it in {listed(higher)}"
        sentences.append(f"{text} and lowers it in {listed(lower)}.")
    alone = any(row["over"] == "prompts" for row in records(curricula))
    if sentences and alone:
        sentences.append("Where a curriculum has one model, its interval is over prompts and speaks for it alone.")
    warning = "A correlation between classes over all heads that untrained models reach as well is no evidence for "
    return [" ".join([*sentences, warning + "heads that were learned."])] if sentences else []


def differences(contrasts: pd.DataFrame) -> list[str]:
    """Rule 1, a sentence per statistic, and whether mixed models agree more than others on any."""
    if not len(contrasts):
        return ["All models are of one curriculum: nothing follows about others."]
    reference = contrasts["curriculum"].iloc[0]
    rows = {(row["state"], row["statistic"], row["other"]): row for row in records(contrasts)}
    compared = [row for (state, name, _), row in rows.items() if state == "trained" and name in COMPARED]
    tested = [row for row in compared if not math.isnan(row["ci_low"])]
    sentences = []
    for name in COMPARED:
        texts = [contrast(row, rows["difference", name, row["other"]]) for row in tested if row["statistic"] == name]
        if texts:
            sentences.append(f"{reference} less other curricula, {NAMES[name]} (p after Holm): {'; '.join(texts)}.")
    if tested:
        twins = [rows["difference", row["statistic"], row["other"]] for row in tested]
        sentences.append(
            f"Of these {counted(len(tested), 'comparison')} {reference} models agree between classes "
            f"{directions(tested)}; less what their untrained twins agree, {directions(twins)}."
        )
    untested = sorted({row["other"] for row in compared} - {row["other"] for row in tested})
    if untested:
        sentences.append(
            f"For {reference} against {', '.join(untested)} there are not two independent seeds on both sides, or no "
            "spread between them: nothing follows about these curricula."
        )
    return sentences


def directions(rows: Sequence[Row]) -> str:
    """In which comparisons mixed models agree more, and in which less."""
    more, less = (
        [f"{NAMES[row['statistic']]} ({row['other']})" for row in rows if differs(row) and sign * row["difference"] > 0]
        for sign in (1, -1)
    )
    return f"MORE in {listed(more)}, LESS in {listed(less)}"


def contrast(row: Row, over_twins: Row) -> str:
    """One statistic between two curricula; where it differs, also less that of the untrained twins."""
    text = f"{row['other']} {bracketed(row['difference'], row['ci_low'], row['ci_high'])} (p = {row['p_holm']:.2g}, "
    text += f"{row['n_seeds']} and {row['n_other']} seeds"
    if differs(row):
        still = "DIFFERENT still" if differs(over_twins) else "no difference"
        text += f": DIFFERENT; less untrained twins {still}, "
        text += bracketed(over_twins["difference"], over_twins["ci_low"], over_twins["ci_high"])
    return text + ")"


def differs(row: Row) -> bool:
    """Rule 1."""
    return row["p_holm"] < SIGNIFICANT and not row["ci_low"] <= 0 <= row["ci_high"]


def paper(table: pd.DataFrame) -> str:
    """Is agreement high in every model with retrospective heads, whatever its curriculum, as in the published maps?"""
    published = {
        model.curriculum: float(mean_over_pairs(pearson, np.stack([model.maps[name].ravel() for name in CLASSES])))
        for model in published_maps()
    }
    near = {model.curriculum: any((model.maps[name] >= NEAR).any() for name in CLASSES) for model in published_maps()}
    theirs = ", ".join(f"{name} {value:.2f}" for name, value in published.items() if near[name])
    flat = ", ".join(f"{name} {value:.2f}" for name, value in published.items() if not near[name])
    rows = records(where(table, classes="all", state="trained", statistic="pearson"))
    sizes = {row["checkpoint"]: row["k"] for row in records(where(table, classes="all", statistic="top_found"))}
    own = [row for row in rows if sizes[row["checkpoint"]]]
    text = f"Published maps, mean Pearson between classes: {theirs}; without retrospective heads {flat}: high in every "
    text += "converged model, so not specific to mixed. "
    if not own:
        return text + "No model here has such heads to compare."
    lowest = min(own, key=lambda row: row["value"])
    agrees = lowest["value"] >= HIGH
    text += f"Here the lowest of {counted(len(own), 'model')} with a head above {ATTENDS:g} is {lowest['value']:.2f} "
    text += f"({lowest['curriculum']}): {'this agrees' if agrees else 'this DISAGREES'}"
    rest = [row["value"] for row in rows if not sizes[row["checkpoint"]]]
    return text + (
        f"; {counted(len(rest), 'model')} without reach {min(rest):.2f} to {max(rest):.2f}." if rest else "."
    )


def found_heads(models: Sequence[Model], found: pd.DataFrame) -> list[str]:
    """In how many models the set above one half is the same on all classes, by curriculum."""
    with_any = [model for model in models if model.found]
    if not with_any:
        return [f"No model has a head above {ATTENDS:g} on any class."]
    texts = []
    for name in dict.fromkeys(model.curriculum for model in with_any):
        own = [model for model in with_any if model.curriculum == name]
        sets = [{row["found"] for row in records(where(found, checkpoint=one.checkpoint.name))} for one in own]
        texts.append(f"{name} {sum(len(one) == 1 for one in sets)} of {len(own)}")
    n_twins = sum(bool((model.untrained.maps > ATTENDS).any()) for model in with_any)
    text = f"{len(with_any)} of {counted(len(models), 'model')} have a head above {ATTENDS:g} on some class "
    text += f"({n_twins} of their untrained twins); it is the same set on every class in "
    return [f"{text}{', '.join(texts)} of these."]


def numbers(models: Sequence[Model], counts: Coincidences) -> list[str]:
    """Rule 3, by number."""
    if not counts.n_pairs:
        return []
    verb = "coincide MORE often than" if counts.p_value < SIGNIFICANT else "coincide no more often than"
    text = f"By number, heads above {ATTENDS:g} of independent models {verb} numbering them anew within layers would "
    text += f"have it: {counted(counts.n_heads, 'head')} in {counts.n_sharing} of {counted(counts.n_pairs, 'pair')}, "
    text += f"{counts.expected:.1f} heads by chance ({p_text(counts.p_value, N_DRAWS)})."
    layers = sorted({head.layer for model in models for head in model.found})
    return [text + f" They lie in {'layer' if len(layers) == 1 else 'layers'} {', '.join(map(str, layers))}."]


def functions(models: Sequence[Model], pairs: pd.DataFrame, between: pd.DataFrame) -> list[str]:
    """Rule 3, by function."""
    n_pairs = len(models) * (len(models) - 1) // 2
    left_out = n_pairs - (len(where(pairs, within="layer", state="trained")) if len(pairs) else 0)
    sentences = []
    if left_out:
        sentences.append(f"{counted(left_out, 'pair')} of models differ in size or prompts and are not compared.")
    if not len(between):
        return sentences
    for name, whose in ((EVERYONE, "independent models"), (FOUND, f"independent models with a head above {ATTENDS:g}")):
        cells = {(row["within"], row["measure"]): row for row in records(where(between, curricula=name))}
        if cells and not (name == FOUND and same_pairs(between)):
            sentences.append(of_matching(cells, whose))
    return [*sentences, *found_matched(pairs), *alike_within(pairs)]


def found_matched(pairs: pd.DataFrame) -> list[str]:
    """Whether a head above one half is matched with one of the other model."""
    rows = records(where(pairs, within="layer", state="trained")) if len(pairs) else []
    rows = [row for row in rows if not row["same_stream"] and row["expected"]]
    if not rows:
        return []
    n_matched, n_possible = (sum(row["n_matched"] for row in rows), sum(row["n_possible"] for row in rows))
    text = (
        f"Within layers {n_matched} of at most {n_possible} heads above {ATTENDS:g} are matched with one of the other "
    )
    return [text + f"model ({sum(row['expected'] for row in rows):.1f} at random; {counted(len(rows), 'pair')})."]


def same_pairs(between: pd.DataFrame) -> bool:
    counts = [list(where(between, curricula=name)["n_pairs"])[:1] for name in (EVERYONE, FOUND)]
    return counts[0] == counts[1]


def of_matching(cells: dict[tuple[str, str], Row], whose: str) -> str:
    """One group of pairs, matched within layers, and over all of them."""
    layer, model = (
        {measure: row for (within, measure), row in cells.items() if within == where_from}
        for where_from in ("layer", "model")
    )
    learned = layer["learned"]
    text = f"By function, {whose} ({counted(learned['n_pairs'], 'pair')} of {learned['n_seeds']} seeds): heads matched "
    text += f"within layers are {layer['matched']['value']:.2f} alike at pairs and prompts that did not match them "
    text += (
        f"(cosine), by number {layer['by_index']['value']:.2f}, matched at random {layer['chance']['value']:.2f}; the "
    )
    text += (
        f"excess {layer['matched_excess']['value']:.2f} is {layer['untrained_excess']['value']:.2f} in the untrained "
    )
    text += f"twins (difference {estimate(learned)}). Over all layers {model['matched']['value']:.2f}, at random "
    text += f"{model['chance']['value']:.2f} (difference to the twins {estimate(model['learned'])}). "
    if math.isnan(learned["ci_low"]):
        return text + "Fewer than three seeds allow no interval: nothing follows."
    if learned["ci_low"] <= 0:
        return text + "The interval reaches 0: it is not shown that training makes them alike."
    return text + f"Kinds of heads recur in independent models. {beyond_kinds(layer)}"


def beyond_kinds(layer: dict[str, Row]) -> str:
    """Rule 3: whether two models correspond, and whether their likeness is that of the heads above one half."""
    beyond, rest = layer["beyond_kinds"], layer["rest_excess"]
    text = f"Without the heads above {ATTENDS:g} the excess is {rest['value']:.2f}. "
    if math.isnan(beyond["ci_low"]):
        return text + "Too few models are left to draw heads from: whether two models correspond is not tested."
    text += f"With heads drawn from the same layers of other models they are {layer['kinds']['value']:.2f} alike "
    text += f"(difference {estimate(beyond)}): "
    if beyond["ci_low"] > 0:
        return text + "two models correspond MORE than recurring kinds explain."
    return text + "it is not shown that two models correspond beyond recurring kinds."


def alike_within(pairs: pd.DataFrame) -> list[str]:
    """Whether two mixed models are more alike than a mixed one and another, among those with heads above one half."""
    if not len(pairs):
        return []
    rows = grouped(measured(where(pairs, within="layer"))).get(FOUND, [])
    found = contrast_within(rows, MIXED, "matched_excess")
    if math.isnan(found.low):
        return []
    kind = "MORE" if found.low > 0 else "LESS" if found.high < 0 else "no more or less"
    text = (
        f"Among models with a head above {ATTENDS:g}, two mixed ones' matched heads are {kind} alike than those of a "
    )
    return [f"{text}mixed and another one (difference {bracketed(*found[:3])}, jackknife over seeds)."]


def streams(models: Sequence[Model], pairs: pd.DataFrame) -> list[str]:
    """Which models are no independent evidence, and how alike they are by number."""
    if len(models) == 1:
        return ["One model: nothing follows about others, nor about its curriculum."]
    if not len(pairs):
        return []
    rows = records(where(pairs, within="layer", state="trained"))
    same = [row for row in rows if row["same_stream"]]
    if not same:
        return ["No two of these models share a seed of initialisation, data or task choice."]
    other = [row["by_index"] - row["chance"] for row in rows if not row["same_stream"]]
    labels = {model.checkpoint.name: model.label for model in models}
    listing = ", ".join(f"{labels[row['checkpoint']]} & {labels[row['other']]}" for row in same[:6])
    more = f" and {len(same) - 6} more" if len(same) > 6 else ""
    excess = float(np.mean([row["by_index"] - row["chance"] for row in same]))
    text = (
        f"WARNING: {counted(len(same), 'pair')} of models share a stream of random numbers ({listing}{more}) and count "
    )
    text += f"as one seed each: head by head of the same number they are {excess:.2f} more alike than random matchings"
    text += f" (independent models {np.mean(other):.2f})" if other else ""
    n_shared, n_found = sum(row["n_coincide"] for row in same), sum(row["n_found"] for row in same)
    return [text + f", and {n_shared} of {n_found} heads above {ATTENDS:g} have the same number."]


def estimate(row: Row) -> str:
    return bracketed(row["value"], row["ci_low"], row["ci_high"])
