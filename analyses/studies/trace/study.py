"""What do retrospective heads carry, and who reads it?

1. The heads: those above `ATTENDS` on selection prompts.
2. What they carry: how well x_i can be decoded from the output of each head at y_i (R², held out), compared with the
   other heads of the model and with the same heads of an untrained one (`interp.readouts.head_decoding`).
3. Who reads it: path patching from each head to groups of receivers that exist in every model, whatever the numbers of
   its heads (`READERS`); each group's share of the total effect of patching the head (`interp.patching.paths`).
4. Over independent seeds, by curriculum, on the first class that each model trains on.
"""

from collections.abc import Sequence
from functools import partial

import pandas as pd

from analyses.findings import Findings
from analyses.studies.trace.figures import plot_readers
from analyses.studies.trace.measures import CORRUPT, pool_decoding, pool_shares, trace_heads
from analyses.studies.trace.tables import overview_tables
from analyses.studies.trace.verdict import SENTENCES, decoding_sentences, reader_sentences
from interp.ablation.size_classes import ATTENDS
from interp.model.heads import heads_above
from interp.scores.score import selection_scores
from interp.statistics.seeds import independent_seeds
from training.checkpoints.checkpoint import Checkpoint
from training.common.progress import progress_bar

QUESTION = "What do retrospective heads carry, and who reads it?"


def study(checkpoints: Sequence[Checkpoint], *, n_prompts: int = 1024, seed: int = 0) -> Findings:
    """Run the study on any number of models; those without such heads are named and left out.

    Args:
        checkpoints: loaded runs.
        n_prompts: per class and stream.
        seed: of prompts and resampling.
    """
    traced, left_out = [], []
    for checkpoint in progress_bar(checkpoints, desc="trace", unit="model"):
        heads = heads_above(ATTENDS, selection_scores(checkpoint, n_prompts, seed))
        if heads:
            traced.append(trace_heads(checkpoint, heads, checkpoint.config.trained_classes[0], n_prompts, seed))
        else:
            left_out.append(checkpoint.name)
    readers, decoding = pd.DataFrame(), pd.DataFrame()
    if traced:
        readers = pd.concat([model.readers for model in traced], ignore_index=True)
        decoding = pd.concat([model.decoding for model in traced], ignore_index=True)
    shares, decoded = pool_shares(traced), pool_decoding(traced)
    sentences = [*decoding_sentences(decoded), *reader_sentences(traced, shares)]
    if left_out:
        sentences.append(SENTENCES["left out"].format(threshold=ATTENDS, models=", ".join(left_out)))
    return Findings(
        QUESTION,
        sentences,
        {
            "checkpoints": [checkpoint.name for checkpoint in checkpoints],
            "independent seeds": len(independent_seeds(checkpoints)),
            "prompts": n_prompts,
            "seed": seed,
            "corruption": CORRUPT,
            "score above": ATTENDS,
        },
        {"readers": readers, "written": decoding, "shares": shares, "carried": decoded},
        overview_tables(shares, decoded),
        {"readers": partial(plot_readers, readers)} if traced else {},
    )
