"""What the circuits of a model say, by rule."""

from interp.attribution.circuits import Circuits
from interp.display.result import displays


@displays(Circuits, "sentences")
def circuit_verdict(result: Circuits) -> list[str]:
    """One sentence for every class."""
    return [result.sentence(name) for name in result.smallest]
