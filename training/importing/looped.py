"""Run directories of Leiay/looped_transformer, its baseline family gpt2 (read at 6b3bdb2)."""

from training.importing.garg import WITH_POSITIONS, check_network, translated
from training.importing.gpt2_layout import Backbone
from training.importing.settings import Settings
from training.importing.tasks import TASKS, function_class
from training.importing.translation import Translation

NOISE = 0.1
"""Of noisy_linear_regression, which no setting changes."""
BACKBONE = Backbone(prefix="_backbone.transformer.", transposed=True, spare_rows=1)


def translate(settings: Settings, step: int, label: str) -> Translation | None:
    """The run at a step; None where there are reasons against it."""
    check_network(settings)
    settings.require(WITH_POSITIONS)
    key = "training.task_name"
    name = settings.word(key)
    arguments: dict[str, object] = {}
    if name == "noisy_linear_regression":
        arguments["noise_std"] = NOISE
    sparsity = settings.whole("training.sparsity", default=100)
    if name == "sparse_linear_regression":
        arguments["sparsity"] = sparsity
    if name == "relu_2nn_regression" and sparsity < TASKS[name].default:
        settings.refuse(f"{key} is {name} with sparsity {sparsity}: no function class has that", "data.classes")
    if settings.get("training.use_fixed_dataset"):
        settings.notes.append("trained on a fixed set of prompts; evaluation draws new ones")
    return translated(settings, step, label, function_class(settings, key, name, arguments), BACKBONE)
