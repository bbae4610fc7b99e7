# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The same heads? Consistency over classes and seeds, and a report of it
#
# **Question.** Head 0.1 of `zoo:mixed-0` looks from every $y_i$ back at its own $x_i$. Does it on every function class?
# Do models of other curricula and other seeds have the same head? And how does a colleague check the answer?
#
# Seven of the shipped models on few prompts: enough to see what each number means, too few to say anything about a
# curriculum. On all of them: `interp study consistency --ckpt 'zoo:*-*'`
# ([results](concepts/results.md)).

# %%
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pandas as pd

from analyses.report.evidence import Settings
from analyses.report.report import report
from analyses.studies.consistency.measures.attention import initial_model, read_attention
from analyses.studies.consistency.measures.matching import best_match, blocks, similarity
from analyses.studies.consistency.measures.within import contrasts_table
from analyses.studies.consistency.study import study
from interp import load, patterns, score
from interp.display.axes import row_of_axes
from interp.statistics.agreement import spearman
from interp.statistics.seeds import independent_seeds
from training.common.table_rows import where

CLASSES = ["linear", "quadratic", "cubic"]
NAMES = ["mixed-0", "mixed-1", "mixed-2", "sequential-0", "sequential-1", "sequential-2", "inherited"]
checkpoints = [load(f"zoo:{name}") for name in NAMES]

# %% [markdown]
# ## One model, three classes
#
# Two models, a row each. Look for the dark cell of every panel, and whether it stays where it is. Then look at the
# other cells: do they stay as they are?

# %%
mixed, sequential = (score(checkpoints[place], CLASSES, n_prompts=256) for place in (0, 4))
_ = mixed.plot(sequential)

# %% [markdown]
# One head stands out on every class, 0.1 above and 0.2 below. So far the eye; how would one put a number on it?
#
# ## A rank correlation proves nothing
#
# The obvious number is a rank correlation: order all 24 heads by their score on linear and on cubic functions, and
# compare the two orders. Beside it the same for the **untrained twin**, this model before its first step. Look at the
# titles first, and then at the axes.

# %%
twin = replace(checkpoints[0], name="untrained twin", model=initial_model(checkpoints[0]))
untrained = score(twin, CLASSES, n_prompts=256)
rho = {}
maps = {"trained": mixed, "untrained": untrained}
for ax, (name, one) in zip(row_of_axes(2, width=3, height=2.7), maps.items(), strict=True):
    on_linear, on_cubic = (one.values[of].ravel() for of in ("linear", "cubic"))
    rho[name] = float(spearman(on_linear, on_cubic))
    ax.plot(on_linear, on_cubic, "o", ms=4)
    ax.set(title=f"{name}: rank correlation {rho[name]:.2f}", xlabel="score on linear", ylabel="score on cubic")
    ax.locator_params(nbins=4)

# %% [markdown]
# A model that has learned nothing agrees with itself as well. Its heads hardly prefer anything (all scores lie near the
# chance level of 0.106), but what they prefer follows from the positions and from x, and these are the same on every
# class. What training adds is one head far away from the others, which a rank cannot see. So the better question is:
# **which heads are above one half, and is it the same set on every class?**

# %%
assert min(rho.values()) > 0.85
assert abs(rho["trained"] - rho["untrained"]) < 0.08
assert untrained.values["cubic"].max() < 0.15 < 0.8 < mixed.values["cubic"].max()

# %% [markdown]
# ## The study
#
# `study` compares maps of heads within and between models. It gives `Findings`: a question, sentences that follow by
# rule, the protocol, tidy tables, and figures that are drawn when asked for. `interp study consistency` prints and
# writes the same. It is much at once; look at the first table's *heads > 1/2* and at the first sentence under the
# tables. The sections below come back to the rest.

# %%
found = study(checkpoints, n_prompts=256)
found

# %%
sets = found.files["found"].pivot(index="checkpoint", columns="function_class", values="found")
assert (sets.nunique(axis=1) == 1).all()
assert sets["linear"].tolist().count("") == 0
assert sets.loc["zoo:mixed-2", "linear"] == "0.2 0.5"

# %% [markdown]
# The same heads on every class, in all seven, and in none of their untrained twins. That is the case in both curricula:
# nothing that distinguishes mixed.
#
# ## Seeds, not prompts
#
# How alike are the classes within mixed models? Three models, each with its interval over prompts, and the mean over
# three seeds with its interval. Look at whether any of the first three intervals holds another model's value.

# %%
within = found.files["within"]
alike = where(within, classes="all", statistic="spearman", state="trained", curriculum="mixed").set_index("checkpoint")
over_seeds = where(found.files["curricula"], statistic="spearman", state="trained", curriculum="mixed")
alike.loc["mixed, over seeds"] = over_seeds.iloc[0]
alike[["value", "ci_low", "ci_high"]].round(2)

# %% [markdown]
# None of them does. Each is right, about its own model: with more prompts they would shrink further, and still say
# nothing about the next seed. A sentence about a curriculum takes its interval from what differs between models of it,
# and that is five times as wide here as the widest of the three.

# %%
models, width = alike.iloc[:3], alike["ci_high"] - alike["ci_low"]
assert all(models["value"].between(low, high).sum() == 1 for low, high in models[["ci_low", "ci_high"]].to_numpy())
assert width["mixed, over seeds"] > 4 * width.iloc[:3].max()

# %% [markdown]
# ## One stream, one seed
#
# `zoo:inherited` is a sequential run on the three seeds of `mixed-0`: of initial weights, data, and choice of class.
# The two count as one seed; the column *seed* above has the same number for both.

# %%
print("places that count as one seed:", independent_seeds(checkpoints))
print(next(sentence for sentence in found.sentences() if sentence.startswith("WARNING")))

# %% [markdown]
# What if one did not care? Below, mixed less sequential in rank correlation, three times: without `inherited`, with
# `inherited` counted as a fourth seed of its own, and with it as what it is. Look at the p-values.

# %%
alone, fresh = within[within["checkpoint"] != "zoo:inherited"], within.copy()
fresh.loc[fresh["checkpoint"] == "zoo:inherited", "seed_group"] = 99
ways = {"left out": alone, "taken for a fresh seed": fresh, "as it is": within}
contrasts = pd.concat(
    where(contrasts_table(table), state="trained", statistic="spearman").assign(inherited=name)
    for name, table in ways.items()
).set_index("inherited")
contrasts[["difference", "ci_low", "ci_high", "p_value", "n_seeds", "n_other"]].round(3)

# %% [markdown]
# A seed that was none makes the difference "significant". Counted properly it is in both groups, these are no two
# independent samples, and the study refuses the comparison. With five seeds of each curriculum
# ([results](concepts/results.md)) mixed models are more alike between classes in 0 of 15 comparisons.

# %%
assert contrasts.loc["taken for a fresh seed", "p_value"] < 0.05 < contrasts.loc["left out", "p_value"]
assert contrasts.loc["as it is", ["ci_low", "p_value"]].isna().all()

# %% [markdown]
# ## By number, or by what they look at
#
# Do *different* models have the same heads? By number there is no reason: within a layer an initialisation numbers
# heads at random. Heads 0.0 and 0.1 of two models, mean attention by token. Look for the chain of dark cells left of
# the diagonal: which panel has it?

# %%
_ = patterns(checkpoints[0], "0.0,0.1", n_prompts=64).plot()

# %%
_ = patterns(checkpoints[1], "0.0,0.1", n_prompts=64).plot()

# %% [markdown]
# The alternative to the number is to match each head of one model with the head of the other that attends most alike
# (the cosine of their patterns, uniform attention taken away).

# %%
ours, theirs = (
    read_attention(one.model, one.config, CLASSES, n_prompts=64, n_choosing=64, seed=0) for one in checkpoints[:2]
)
match = best_match(similarity(ours.selection_descriptions, theirs.selection_descriptions), blocks(3, 8, "layer"))
cosine = similarity(ours.test_descriptions, theirs.test_descriptions)[1]
print(f"0.1 of mixed-0 and 0.1 of mixed-1: {cosine[1]:.2f}; and its match, 0.{match[1]}: {cosine[match[1]]:.2f}")

# %% [markdown]
# Heads of two random models can be matched too, by what each happens to prefer. So the match is chosen on the first
# half of the pairs and judged on the second, on other prompts, and its level is set against random matchings and
# against the untrained twins.
#
# All pairs of models. Left: heads above one half with the same number. Middle: similarity of heads of the same number.
# Right: of matched heads. Look at the framed cells (shared stream), then at how the rest differs from left to right.

# %%
_ = found.plot("between")

# %%
everyone = where(found.files["between"], curricula="all", within="layer").set_index("measure")
print(*(said for said in found.sentences() if said.startswith(("By number", "Within layers"))), sep="\n")
everyone[["value", "ci_low", "ci_high", "n_pairs", "n_seeds"]].round(2)

# %%
assert match[1] == 0
assert cosine[1] < 0.1 < 0.6 < cosine[0]
assert abs(everyone.loc["by_index", "value"] - everyone.loc["chance", "value"]) < 0.05
assert everyone.loc["matched", "value"] > everyone.loc["chance", "value"] + 0.2
assert everyone.loc["untrained_excess", "value"] < 0.05 < 0.15 < everyone.loc["learned", "ci_low"]

# %% [markdown]
# By number, independent models are as alike as random matchings (`by_index` against `chance`). By what they look at,
# training has made their heads similar (`learned`: the excess over random matchings, less that of the untrained twins).
# A model is as similar to a composite one, whose heads are drawn at random from the same layers of other models
# (`kinds`; `beyond_kinds` is the difference): two real models are not shown to have more in common. It is a statement
# about attention. Whether matched heads write the same, and to whom, is another question
# ([results](concepts/results.md)).
#
# ## A report
#
# `interp report` puts the evidence on one page: located, removed, compared, and judged. Here from Python, on two
# models, two classes and few prompts.
#
# A colleague would try to break seven claims; each has a rule. A claim *holds* if its rule is met in
# every case that it speaks of, *fails* if in none, holds *in part* otherwise, and is *open* where these data cannot
# decide. Look for the two that do not hold, and read why.

# %%
settings = Settings(n_prompts=128, n_controls=50, classes=("linear", "quadratic"), paths=False)
made = report([checkpoints[0], checkpoints[2]], settings)
made.claims.style.set_properties(**{"text-align": "left"})

# %%
assert made.claims["verdict"].tolist() == ["holds", "holds", "holds", "holds", "holds", "in part", "fails"]

# %% [markdown]
# Beside them the warnings that apply, by rule as well.

# %%
for caveat in made.account.caveats:
    print(f"{caveat.kind}: {caveat.text}")

# %% [markdown]
# Then it is written. The page is one file without outside parts; its numbers lie beside it as JSON and CSV.

# %%
target = made.write(Path(tempfile.mkdtemp()) / "report.html")
print(*sorted(str(path.relative_to(target.parent)) for path in target.parent.rglob("*.*")), sep="\n")

# %% [markdown]
# Open the page in a browser (`analyses/figures/zoo-report.html` is one of fourteen models). Its sections:
#
# | section | what it answers |
# |---|---|
# | Summary | the seven verdicts with their cases, and the finding of each model in a sentence |
# | Warnings | what a reader must know before believing it: few seeds, shared streams, not converged, ... |
# | Attention scores | score maps on test prompts; framed heads were chosen on others |
# | Effect of removal | the found heads, three modes, every control set as a dot; error curves |
# | Dose and response | every single head: the effect of removing it against its score |
# | Agreement | between classes of a model, between models by number |
# | Emergence | score and error over training, where there are snapshots |
# | Heads | a card for each found head: its scores, what it reads, who reads it |
# | Protocol | prompts, seeds, thresholds, versions, hashes of the weights, the exact command |
#
# ## A verdict by hand
#
# Claim 6 again, from the file alone. Heads are names, so they are read as text: as a number, 0.10 would be 0.1.

# %%
folder = target.with_suffix("")
written = json.loads((folder / "report.json").read_text())
heads = pd.read_csv(folder / "single_heads.csv", dtype={"head": str})
attends, matters = heads["score"] > 0.5, heads["effect"] >= 0.5
met, cases = (attends & matters).sum(), (attends | matters).sum()
print(written["claims"][5]["statement"])
print(f"{met} of {cases} cases:", written["claims"][5]["verdict"])

# %% [markdown]
# Every case is a head on a class. Look for the dots in the lower right corner: they attend, and removing them alone
# costs nothing.

# %%
(ax,) = row_of_axes(1, width=4.2, height=2.8)
for name, of_model in heads.groupby("checkpoint"):
    ax.plot(of_model["score"], of_model["effect"], "o", ms=4, label=name)
for row in heads[attends].drop_duplicates(["checkpoint", "head"]).itertuples():
    ax.annotate(row.head, (row.score, row.effect), xytext=(-20, -3), textcoords="offset points", fontsize=8)
for draw in (ax.axhline, ax.axvline):
    draw(0.5, color="#b9c0c7", ls=":", lw=0.8)
ax.set(xlabel="retrospective score", ylabel="effect of removing it alone", xlim=(0, 1.05))
_ = ax.legend(frameon=False, fontsize=8, loc="upper left")

# %%
assert (met, cases) == (3, 6)
assert written["claims"][5]["verdict"] == "in part"
assert set(heads[attends & ~matters]["checkpoint"] + " " + heads[attends & ~matters]["head"]) == {
    "zoo:mixed-2 0.2",
    "zoo:mixed-2 0.5",
}

# %% [markdown]
# In part: 0.5 of `mixed-2` attends, and removing it alone costs nothing (it matters once 0.2 is gone, notebook 3); 0.2
# costs 0.495 on linear, just below the threshold. Nobody had to decide how to word it, and who disagrees with a
# threshold can count again.
#
# ## What does not follow
#
# - *Mixed training makes heads consistent over classes*: they are as consistent in the sequential runs.
# - *The scores of two classes correlate with 0.91, so the same heads were learned*: so do those of an untrained model.
# - *Head 0.1 is the retrospective head*: of `mixed-0`. Another seed has it elsewhere in the layer.
# - *Seven models have such a head, so all do*: they are six seeds, and six that agree leave up to 46 % that do not.
# - *Claim 3 holds*: of these two models together. For `mixed-0` alone it would be open, since one head in a layer of
#   eight allows no p below 1/8 (notebook 4).

# %%
assert len(independent_seeds(checkpoints)) == 6
assert abs((1 - 0.025 ** (1 / 6)) - 0.46) < 0.01  # the upper end of the exact 95 % interval for 0 of 6

# %% [markdown]
# **Exercise.** `mixed-0` and `inherited`: two models of two curricula, both with head 0.1, and both lose the gain
# without it. In a report on the two, which verdict on claim 3 do you expect, and which warning? The answer is below.

# %% jupyter={"source_hidden": true} tags=["answer"]
shared = report([checkpoints[0], checkpoints[6]], settings)
print(shared.account.claims[2].verdict.upper(), shared.account.claims[2].evidence)
print(next(caveat.text for caveat in shared.account.caveats if caveat.kind == "shared streams"))
assert shared.account.claims[2].verdict == "open"
assert where(shared.evidence.pooled, curriculum="all")["n_seeds"].eq(1).all()
assert where(shared.evidence.pooled, curriculum="all")["smallest_p"].eq(1 / 8).all()

# %% [markdown]
# Open. The shared stream has put the head in the same place of both: it was drawn once, so the pair counts as one seed
# and allows no smaller p than one model does.
