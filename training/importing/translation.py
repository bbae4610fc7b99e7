"""A configuration of another program as one of this program: what all of its dialects have in common."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from training.config.config import RunConfig
from training.importing.gpt2_layout import Backbone
from training.importing.hybrid_layout import Hybrid
from training.importing.settings import Settings, grown

Values = dict[str, Any]
INSTRUCTIONS = ("linear_instruction.pt", "quadratic_instruction.pt", "cubic_instruction.pt")
"""Files of instruction vectors, by the number of the task or distribution; the third is for all further ones."""


@dataclass(frozen=True)
class Translation:
    """What a source says, in our words.

    Attributes:
        config: the run's.
        n_dims: coordinates of the source's read-in, of which the run may use fewer.
        backbone: how it lays out its parameters.
    """

    config: RunConfig
    n_dims: int
    backbone: Backbone | Hybrid


@dataclass(frozen=True)
class Growing:
    """A number that grows while a model is trained."""

    start: int
    by: int
    every: int
    end: int

    def at(self, step: int) -> int:
        return grown(self.start, self.by, self.every, self.end, step)

    def growth(self, name: str, step: int) -> Values:
        """Our settings of it; none where it is constant."""
        if self.start >= self.at(step):
            return {}
        return {name: self.start, f"{name}_by": self.by, f"{name}_every": self.every}


def growing(settings: Settings, key: str, names: Sequence[str] = ("start", "inc", "interval", "end")) -> Growing:
    """The four numbers of a table such as `training.curriculum.points`."""
    start, by, every, end = names
    return Growing(
        settings.whole(f"{key}.{start}"),
        settings.whole(f"{key}.{by}", default=1, at_least=0),
        settings.whole(f"{key}.{every}", default=1),
        settings.whole(f"{key}.{end}"),
    )


def sizes(settings: Settings, n_dims: int) -> Values:
    """The table `model`, whose read-in and read-out torch initialised by its default."""
    return {
        "n_layers": settings.whole("model.n_layer"),
        "n_heads": settings.whole("model.n_head"),
        "d_model": settings.whole("model.n_embd"),
        "n_dims": n_dims,
        "n_ctx": 2 * settings.whole("model.n_positions"),
        "read_init": "linear",
    }


def used_dims(settings: Settings, n_dims: int, dims: Growing, step: int, classes: Sequence[str]) -> int:
    """The coordinates that were ever used by a step: the others have untrained rows in the read-in.

    Leaving these out changes nothing on prompts in which they are 0, but for trees, which ask for them.
    """
    used = min(n_dims, dims.at(step))
    if used < n_dims:
        settings.notes.append(f"training used {used} of {n_dims} input dimensions: the model is opened with {used}")
        if any(name.startswith("decision_tree") for name in classes):
            settings.refuse(
                f"its decision trees ask for {n_dims} coordinates, of which training used {used}: no class does that"
            )
    return used


def trained_points(settings: Settings, points: Growing, step: int) -> int:
    """The longest prompts that training had reached by a step: positions beyond are untrained."""
    reached, most = points.at(step), settings.whole("model.n_positions")
    if reached < most:
        settings.notes.append(f"prompts are of {reached} pairs, as trained; the model has positions for {most}")
    return min(reached, most)


def recipe(settings: Settings, step: int, table: str = "training") -> Values:
    """Steps, batch size and Adam's rate."""
    return {
        "steps": max(1, step, settings.whole(f"{table}.train_steps", default=max(1, step))),
        "batch_size": settings.whole(f"{table}.batch_size", default=64),
        "optimizer": "adam",
        "lr": settings.number(f"{table}.learning_rate", 3e-4),
        "weight_decay": settings.number(f"{table}.weight_decay", 0.0),
        "grad_clip": settings.number(f"{table}.gradient_clip", 0.0),
    }


def chosen_classes(settings: Settings, classes: Sequence[str]) -> tuple[str, ...]:
    """The function classes that the user has set, or those of the source."""
    for setting in settings.set_by_user:
        key, _, text = setting.partition("=")
        if key == "data.classes":
            return tuple(text.split(","))
    return tuple(classes)


def single_or_random(classes: Sequence[str]) -> str:
    """The curriculum of a run of which only the classes are known."""
    return f"single:{classes[0]}" if len(classes) == 1 else "random"


def note_finite_pools(settings: Settings) -> None:
    """Notes on training sets that were finite, where evaluation draws anew."""
    for key, what in (("training.num_tasks", "functions"), ("training.num_training_examples", "prompts")):
        if settings.get(key) is not None:
            settings.notes.append(f"trained on {settings.whole(key)} {what} only; evaluation draws new ones")
    for key in ("model.transformer_seed", "training.seed"):
        if settings.get(key) is not None:
            settings.notes.append(
                f"{key} is {settings.whole(key, at_least=0)}: runs of its program with the same number share streams"
            )
