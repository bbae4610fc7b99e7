"""Run directories of in-context-learning-2024/in-context, its models of type gpt2 and hybrid (read at ab00265)."""

from collections.abc import Mapping

from training.importing import hybrid_layout
from training.importing.gpt2_layout import Backbone
from training.importing.hybrid_layout import Hybrid
from training.importing.settings import Requirement, Settings, written
from training.importing.tasks import Task, with_parameter
from training.importing.translation import (
    Growing,
    Translation,
    Values,
    chosen_classes,
    growing,
    single_or_random,
    sizes,
    trained_points,
    used_dims,
)

CLASSES: Mapping[str, Task] = {
    "linear regression": Task("linear"),
    "sparse linear regression": Task("sparse_linear", "sparsity", 3),
    "decision tree": Task("decision_tree", "depth", 4),
    "linear classification": Task("linear_classification"),
}
"""Its classification is trained on the squared error, as ours; its networks and quadratics have other scales."""
REQUIRED = (
    Requirement("model.type", ("gpt2", "hybrid"), "gpt2, and hybrid models of its modules, can be opened"),
    Requirement("model.rope_theta", (10_000, None), "rotary positions of base 10000 can be opened"),
    Requirement("y_dim", (1,), "a single real output can be read"),
    Requirement("model.y_dim", (1,), "a single real output can be read"),
    Requirement("loss_fn.type", ("squared", "mse"), "models trained on the squared error can be judged"),
    Requirement("predict_last", (False, None), "models trained on every y can be judged"),
    Requirement("x_dist.type", ("normal",), "normal inputs have an equal here"),
)
KNOWN = ("type", "n_positions", "n_embd", "n_layer", "n_head", "x_dim", "y_dim")


def translate(settings: Settings, step: int, label: str) -> Translation | None:
    """The run at a step; None where there are reasons against it."""
    settings.word("model.type")
    settings.require(REQUIRED)
    is_hybrid = settings.get("model.type") == "hybrid"
    settings.refuse_unknown("model", hybrid_layout.KNOWN if is_hybrid else KNOWN)
    dims, points = number_or_curriculum(settings, "x_dim"), number_or_curriculum(settings, "seq_len")
    n_dims = settings.whole("model.x_dim", default=dims.at(settings.whole("steps", default=max(1, step))))
    classes = chosen_classes(settings, (function_class(settings),))
    used = used_dims(settings, n_dims, dims, step, classes)
    values: Values = {
        "curriculum": single_or_random(classes),
        "seed_label": label,
        "model": hybrid_sizes(settings, used) if is_hybrid else sizes(settings, used),
        "recipe": {
            "steps": max(1, step, settings.whole("steps", default=max(1, step))),
            "batch_size": settings.whole("b_size", default=64),
            "lr": settings.number("optim.lr", 1e-3),
        },
        "data": {"classes": list(classes), "n_points": trained_points(settings, points, step)},
        "growth": points.growth("points", step) | dims.growth("dims", step),
    }
    config = settings.run_config(values)
    if settings.reasons or config is None:
        return None
    modules = tuple(hybrid_layout.flatten(settings.get("model.module_names")))
    return Translation(config, n_dims, Hybrid(modules) if is_hybrid else Backbone())


def hybrid_sizes(settings: Settings, n_dims: int) -> Values:
    """The table `model` of a list of modules, whose read-in and read-out torch initialised by its default."""
    return {
        "n_heads": settings.whole("model.n_head"),
        "d_model": settings.whole("model.n_embd"),
        "n_dims": n_dims,
        "n_ctx": 2 * settings.whole("model.n_positions"),
        "read_init": "linear",
        "n_layers": 1,
        **hybrid_layout.architecture(settings),
    }


def number_or_curriculum(settings: Settings, key: str) -> Growing:
    """A setting that is a number, or a table that says how it grows."""
    if not isinstance(settings.get(key), Mapping):
        number = settings.whole(key)
        return Growing(number, 0, 1, number)
    given = growing(settings, key, ("start", "step_size", "step_len", "stop"))
    by = max(given.by, 1)
    return Growing(given.start, given.by, given.every, given.start + by * ((given.end - given.start) // by))


def function_class(settings: Settings) -> str:
    """The function class, with its parameter."""
    key = "function_class.type"
    name = settings.word(key)
    if name not in CLASSES:
        settings.refuse(
            f"{key} is {written(name)}: none here has its scale (known: {', '.join(CLASSES)})", "data.classes"
        )
        return "linear"
    task = CLASSES[name]
    for argument in settings.table("function_class"):
        if argument not in ("type", task.parameter):
            settings.refuse(f"function_class.{argument}: no function class has that", "data.classes")
    return with_parameter(settings, key, task, settings.table("function_class").get(task.parameter, task.default))
