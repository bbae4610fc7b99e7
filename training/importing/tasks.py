"""The tasks of Garg et al. 2022 and of those who build on their code, by this project's names of function classes."""

from collections.abc import Mapping
from typing import NamedTuple

from training.importing.settings import OFF, Settings, is_same, written


class Task(NamedTuple):
    """A task of theirs.

    Attributes:
        function_class: our name.
        parameter: their setting that is the class's parameter; empty if it has none.
        default: its value where it is not given.
    """

    function_class: str
    parameter: str = ""
    default: float = 0


TASKS: Mapping[str, Task] = {
    "linear_regression": Task("linear"),
    "sparse_linear_regression": Task("sparse_linear", "sparsity", 3),
    "noisy_linear_regression": Task("noisy_linear", "noise_std", 0),
    "quadratic_regression": Task("coordinatewise_quadratic"),
    "relu_2nn_regression": Task("relu_network", "hidden_layer_size", 100),
    "decision_tree": Task("decision_tree", "depth", 4),
    "hermite_regression": Task("", "degree", 1),
}
HERMITE = {1: "linear", 2: "quadratic", 3: "cubic", 4: "quartic"}
NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "scale": (1, None),
    "renormalize_ys": OFF,
    "normalize_outputs": OFF,
    "transformation_args": OFF,
    "skew": OFF,
    "skew_seed": (42,),
}
"""Settings of their tasks that leave y as it is, and at which values."""
LOGITS = (
    "its outputs are logits, trained with cross-entropy: their squared errors mean nothing, and effects here are made "
    "of squared errors"
)


def function_class(settings: Settings, key: str, name: str, arguments: Mapping[str, object]) -> str:
    """Our name of a task; a reason is added to the settings where there is none.

    Args:
        settings: those of the source.
        key: under which the task's name stands.
        name: of the task.
        arguments: its settings.
    """
    if not name:
        return "linear"  # that it is missing is a reason already
    if name == "linear_classification":
        settings.refuse(f"{key} is {name}: {LOGITS}")
        return "linear"
    if name not in TASKS:
        known = ", ".join((*TASKS, "linear_classification"))
        settings.refuse(f"{key} is {written(name)}: there is no such function class (known: {known})", "data.classes")
        return "linear"
    task = TASKS[name]
    for argument, value in arguments.items():
        if argument != task.parameter and not any(is_same(value, ok) for ok in NEUTRAL.get(argument, OFF)):
            settings.refuse(
                f"{key} is {name} with {argument} {written(value)}: no function class has that", "data.classes"
            )
    return with_parameter(settings, key, task, arguments.get(task.parameter, task.default))


def with_parameter(settings: Settings, key: str, task: Task, value: object) -> str:
    """NAME, or NAME:PARAMETER."""
    if not task.parameter:
        return task.function_class
    if not isinstance(value, int | float) or isinstance(value, bool):
        settings.refuse(f"{key}: {task.parameter} is {written(value)}: a number is needed")
        return "linear"
    if not task.function_class:
        if value not in HERMITE:
            settings.refuse(f"{key}: {task.parameter} is {value}: it can be {', '.join(map(str, HERMITE))}")
        return HERMITE.get(int(value), "linear")
    if task.function_class == "noisy_linear" and value == 0:
        return "linear"
    return f"{task.function_class}:{value}"
