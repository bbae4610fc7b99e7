"""What the columns of the small tables of studies hold, by their names.

Columns that a title explains (function classes, replacements, stages, readers) have no entry.
"""

from collections.abc import Mapping

MEANINGS: Mapping[str, str] = {
    # several studies
    "seeds": "number of independent seeds",
    "models": "number of models, or which",
    "heads": "with a retrospective score above 1/2",
    "p Holm": "of the mean ablation, adjusted over function classes",
    "p": "exact, by ranks",
    "p, Holm": "p adjusted over the measures of the table",
    "Spearman": "rank correlation",
    "chance": "chance level",
    # cause
    "matters above": "share of the gain from which on a head counts as one that matters",
    "precision": "share of the heads above 1/2 that matter",
    "recall": "share of the heads that matter whose score is above 1/2",
    # which_score
    "guide": "a number for every head that can be had without removing it",
    "rank correlation": "with the exact effect over the heads of a model [t-interval over seeds]",
    "share found": "of the heads that cost more than 0.1 alone, those among as many of the highest of the guide",
    "by chance": "the same for a random order",
    "p vs retrospective": "of the paired difference of rank correlations over seeds, adjusted over guides (Holm)",
    # layers
    "first layer": "heads that it needs [t-interval over seeds]",
    "later layer": "heads that a later layer needs, on average",
    "heads needed": "mean over cases",
    "p, random signs": "of the difference, over seeds",
    "all needed": "cases in which all heads of the layer are needed",
    "one needed": "in which one is",
    "none needed": "in which none is",
    "cost, one left": "mean share of the gain lost with the best head of the layer alone",
    "cost, none left": "with none",
    # emergence
    "score": "step from which on it is at least half of its final value",
    "gain": "step from which on the in-context gain is at least half of its final value",
    "effect then": "of removing the heads when the gain is there",
    "order": "which came first",
    # efficiency
    "reached": "seeds that reached the error, then single seeds",
    "prompts of the class": "until then, or their share",
    "operations": "floating-point operations until then",
    "compute": "share of the compute of a run",
    "single": "error of the model of the class alone",
    # plateaus
    "error / no-context": "error over that of the no-context optimum",
    "threshold": "error over that of the no-context optimum",
    "step": "median [range] over seeds",
    "FLOPs": "median [range] over seeds",
    # success
    "overlap": "models within the range of the other kind",
    "untrained": "mean of the untrained twins",
    # consistency
    "heads > 1/2": "heads with a retrospective score above 1/2",
    "Pearson": "correlation of the maps",
    "Kendall's W": "agreement of the ranks over all classes, 1 is perfect",
    "heads > 1/2 shared": "share of these heads that two classes have in common",
    "pairs": "number of pairs of models",
    "same number": "similarity of heads with the same number",
    "random matching": "of heads matched at random",
    "matched": "of heads matched as well as possible",
    "excess": "matched minus random matching",
    "difference": "with its interval",
    "excess untrained": "the same of untrained twins",
    "matched, composite": "of heads matched with a composite model, each head drawn from that layer of another model",
    "real minus composite": "matched minus matched, composite",
    # published
    "maximum": "highest score of a head",
    "median": "of all heads",
}
