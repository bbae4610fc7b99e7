"""What a patching map says, by rule."""

from interp.display.result import displays
from interp.patching.maps import SAME, PatchMap, sentence
from training.common.table_rows import distinct


@displays(PatchMap, "sentences")
def map_verdict(result: PatchMap) -> list[str]:
    """The site that matters most on every class."""
    sentences = [sentence(result, name) for name in distinct(result.table, "function_class")]
    return sentences if all(result.table["differs"]) else [*sentences, SAME]
