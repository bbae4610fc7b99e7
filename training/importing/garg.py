"""Run directories of dtsip/in-context-learning (Garg et al. 2022) and of the programs that kept its configuration.

Read at 3383371; krafton-ai/mambaformer-icl at 7e20284; mdrpanwar/icl-bayesian-prism at 3134708.
"""

from training.importing.gpt2_layout import Backbone
from training.importing.settings import Requirement, Settings, written
from training.importing.tasks import function_class
from training.importing.translation import (
    Translation,
    Values,
    chosen_classes,
    growing,
    note_finite_pools,
    recipe,
    single_or_random,
    sizes,
    trained_points,
    used_dims,
)

GPT2 = "gpt2, the network of this program, can be opened"
REQUIRED = (
    Requirement("model.family", ("gpt2",), GPT2),
    Requirement("model.interleave", (True, None), "prompts x_1 y_1 x_2 y_2 ... (True) can be made here"),
    Requirement("model.vocab_size", (-1, None), "real-valued prompts (-1) can be made here"),
    Requirement("model.pred_type", ("regression", None), "a single real output (regression) can be read"),
)
WITH_POSITIONS = (Requirement("model.pos_encode", (True, None), "learned positions are in this program's networks"),)
"""Of programs that have no such switch."""
KNOWN = (
    *("family", "n_positions", "n_dims", "n_embd", "n_layer", "n_head", "interleave", "vocab_size", "pred_type"),
    *("pos_encode", "transformer_seed", "load_model_path", "train_only_emb", "pretrained_path", "loop_func"),
)
"""Settings of `model` that are read here, or leave the network as it is."""
INPUTS = {"gaussian": "gaussian"}


def check_network(settings: Settings) -> None:
    """Add a reason for all that makes another network."""
    settings.word("model.family")
    settings.require(REQUIRED)
    settings.refuse_unknown("model", KNOWN)


def translate(settings: Settings, step: int, label: str) -> Translation | None:
    """The run at a step; None where there are reasons against it."""
    check_network(settings)
    key = "training.task"
    own_class = function_class(settings, key, settings.word(key), settings.table("training.task_kwargs"))
    backbone = Backbone(has_positions=settings.get("model.pos_encode") is not False)
    return translated(settings, step, label, own_class, backbone)


def translated(settings: Settings, step: int, label: str, own_class: str, backbone: Backbone) -> Translation | None:
    """The run of one function class, with prompts that grow by a curriculum."""
    n_dims = settings.whole("model.n_dims")
    points = growing(settings, "training.curriculum.points")
    dims = growing(settings, "training.curriculum.dims")
    classes = chosen_classes(settings, (own_class,))
    used = used_dims(settings, n_dims, dims, step, classes)
    note_finite_pools(settings)
    values: Values = {
        "curriculum": single_or_random(classes),
        "seed_label": label,
        "model": sizes(settings, used) | ({} if backbone.has_positions else {"positions": "none"}),
        "recipe": recipe(settings, step),
        "data": {
            "classes": list(classes),
            "inputs": [inputs(settings)],
            "n_points": trained_points(settings, points, step),
        },
        "growth": points.growth("points", step) | dims.growth("dims", step),
    }
    config = settings.run_config(values)
    return None if settings.reasons or config is None else Translation(config, n_dims, backbone)


def inputs(settings: Settings) -> str:
    """The input distribution."""
    name = settings.word("training.data", "gaussian")
    if name not in INPUTS:
        settings.refuse(f"training.data is {written(name)}: only gaussian has an equal here", "data.inputs")
    for key in ("training.data_kwargs", "training.data_transformation_args", "training.data_sampler_kwargs"):
        if settings.get(key):
            settings.refuse(
                f"{key} is {written(settings.get(key))}: only inputs N(0, I) have an equal here", "data.inputs"
            )
    return INPUTS.get(name, "gaussian")
