"""What a patching map says, by rule."""

from interp.display.result import displays
from interp.display.text import listed
from interp.patching.maps import SAME, UNVARYING, PatchMap, place_name, sentence
from training.common.output import records
from training.common.table_rows import distinct


@displays(PatchMap, "sentences")
def map_verdict(result: PatchMap) -> list[str]:
    """The places with the best evidence on every class, and those that cannot act."""
    sentences = [sentence(result, name) for name in distinct(result.table, "function_class")]
    rows = records(result.table)
    unvarying = dict.fromkeys(place_name(result.site, row) for row in rows if row["note"])
    if unvarying:
        sentences.append(f"{listed(list(unvarying))}: {UNVARYING}.")
    if not all(row["differs"] or row["note"] for row in rows):
        sentences.append(SAME)
    return sentences
