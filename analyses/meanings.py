"""What the columns of the small tables of studies hold, by their names."""

from collections.abc import Mapping

MEANINGS: Mapping[str, str] = {
    "seeds": "number of independent seeds",
    "models": "number of models",
    "p, Holm": "p adjusted over the tests of the table (Holm)",
}
