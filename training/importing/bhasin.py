"""Run directories of harmonbhasin/curriculum_learning_icl, the program of arXiv 2404.03558 (read at 1c896e3)."""

from training.importing.garg import WITH_POSITIONS, check_network
from training.importing.gpt2_layout import Backbone
from training.importing.settings import Settings, written
from training.importing.tasks import function_class
from training.importing.translation import (
    Growing,
    Translation,
    Values,
    chosen_classes,
    note_finite_pools,
    recipe,
    single_or_random,
    sizes,
    trained_points,
)

CURRICULA = {"sequential": "sequential", "mixed_sequential": "mixed", "random": "random"}
WEIGHTS = {"standard": "standard", "normalized": "unit"}
PROMPTS: dict[str, Values] = {
    "standard": {},
    "model_two": {"kind": "one_hot", "tokens": 1},
    "model_three": {"kind": "one_hot", "tokens": 2},
    "model_four": {"kind": "vector", "tokens": 1},
}
INPUTS = {"gaussian": "gaussian", "laplace": "laplace:2", "cauchy": "cauchy", "studentT": "student_t"}
"""Their Laplace coordinates have the variance 2."""


def translate(settings: Settings, step: int, label: str) -> Translation | None:
    """The run at a step; None where there are reasons against it."""
    check_network(settings)
    settings.require(WITH_POSITIONS)
    own_classes = [class_of(settings, key, task) for key, task in numbered_tables(settings, "training.task_kwargs")]
    if not own_classes:
        settings.refuse("training.task_kwargs names no task", "data.classes")
    classes = chosen_classes(settings, own_classes or ("linear",))
    n_dims = settings.whole("model.n_dims")
    n_points = settings.whole("training.n_points")
    note_finite_pools(settings)
    values: Values = {
        "curriculum": curriculum(settings, classes),
        "seed_label": label,
        "model": sizes(settings, n_dims),
        "recipe": recipe(settings, step),
        "data": {
            "classes": list(classes),
            "inputs": inputs(settings),
            "n_points": trained_points(settings, Growing(n_points, 0, 1, n_points), step),
            "weights": among(settings, "training.weight_type", WEIGHTS, "standard"),
        },
        "schedule": schedule(settings),
        "instruction": instruction(settings),
    }
    config = settings.run_config(values)
    return None if settings.reasons or config is None else Translation(config, n_dims, Backbone())


def class_of(settings: Settings, key: str, task: Values) -> str:
    """Our name of the task in one table."""
    name = str(task.get("task") or "no task")
    return function_class(settings, f"training.task_kwargs.{key}.task", name, without(task, "task"))


def numbered_tables(settings: Settings, key: str) -> list[tuple[str, Values]]:
    """The tables `task_0`, `task_1`, … (or `data_0`, …) in the order of their numbers."""
    tables = settings.table(key)
    names = sorted(tables, key=lambda name: (len(str(name)), str(name)))
    return [(str(name), dict(settings.table(f"{key}.{name}"))) for name in names]


def without(table: Values, *names: str) -> Values:
    return {key: value for key, value in table.items() if key not in names}


def among(settings: Settings, key: str, known: dict[str, str], default: str) -> str:
    """Our word for one of theirs."""
    word = settings.word(key, default)
    if word not in known:
        settings.refuse(f"{key} is {written(word)}: it can be {', '.join(known)}")
    return known.get(word, next(iter(known.values())))


def curriculum(settings: Settings, classes: tuple[str, ...]) -> str:
    """That over function classes."""
    kind = among(settings, "training.task_schedule", CURRICULA, "sequential")
    return single_or_random(classes) if len(classes) == 1 or settings.is_set("data.classes") else kind


def schedule(settings: Settings) -> Values:
    """The curriculum over input distributions."""
    kind = among(settings, "training.data_schedule", CURRICULA, "sequential")
    blocks = (
        settings.get("training.data_split") == "blocks_based" and settings.get("training.task_schedule") != "random"
    )
    return {"inputs": kind, "inputs_within": "block" if blocks else "run"}


def inputs(settings: Settings) -> list[str]:
    """The input distributions."""
    names = []
    for key, table in numbered_tables(settings, "training.data_kwargs"):
        where, name = f"training.data_kwargs.{key}", str(table.get("data"))
        if name not in INPUTS:
            settings.refuse(f"{where}.data is {written(name)}: it can be {', '.join(INPUTS)}", "data.inputs")
        if table.get("type") == "skewed":
            settings.refuse(f"{where}.type is skewed: its rotation was drawn at random and not kept", "data.inputs")
        for argument, value in without(table, "data", "type", "df").items():
            if value is not None:
                settings.refuse(
                    f"{where}.{argument} is {written(value)}: no input distribution has that", "data.inputs"
                )
        degrees = f":{settings.number(f'{where}.df', 1.0):g}" if name == "studentT" else ""
        names.append(INPUTS.get(name, "gaussian") + degrees)
    return names or ["gaussian"]


def instruction(settings: Settings) -> Values:
    """Instruction tokens: ours has those of types two to four."""
    kind = settings.word("training.prompt_type", "standard")
    if kind not in PROMPTS:
        settings.refuse(f"training.prompt_type is {written(kind)}: it can be {', '.join(PROMPTS)}")
        return {}
    if not PROMPTS[kind]:
        return {}
    arguments = settings.table("training.prompt_kwargs")
    known = {"task": "class", "data": "inputs"}
    about = among(settings, "training.prompt_kwargs.type", known, "task") if arguments else "class"
    encodes = about if arguments.get("encoding") == "dynamic" else "nothing"
    at = settings.whole("training.prompt_kwargs.position", default=0, at_least=0)
    if kind == "model_four" and at:
        settings.refuse(
            f"training.prompt_kwargs.position is {at}: vectors (model_four) stand at the front and are removed at {at}"
        )
    return {**PROMPTS[kind], "at": at, "encodes": encodes}
