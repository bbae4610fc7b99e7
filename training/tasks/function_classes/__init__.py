"""What is learned in context. A class is called by its name, or NAME:PARAMETER (`sparse_linear:2`).

To add one: write a `FunctionClass` in one of the files here or in a new one, name it in `FAMILIES` and in
`training.names`, and give its closed forms a row in tests/training/tasks/test_function_classes.py, which checks them
all by simulation. In a notebook the entry in `FAMILIES` is enough (notebooks/concepts/extending.md).
"""

from collections.abc import Iterable, Sequence

from training.common.errors import UserError
from training.tasks.function_classes.base import Baseline, FunctionClass, FunctionOfX, WeightKind
from training.tasks.function_classes.boolean import Conjunction, SparseParity
from training.tasks.function_classes.hermite import Hermite
from training.tasks.function_classes.linear import LeakyReLU, LinearClassification, NoisyLinear, Sinusoid, SparseLinear
from training.tasks.function_classes.own import DATA, OwnData
from training.tasks.function_classes.piecewise import DecisionTree, ReLUNetwork
from training.tasks.function_classes.quadratic import CoordinatewiseQuadratic, GeneralQuadratic
from training.tasks.function_classes.sequences import AssociativeRecall, MarkovChain, Prototypes
from training.tasks.registry import from_registry

__all__ = ["FAMILIES", "Baseline", "FunctionClass", "FunctionOfX", "WeightKind", "choose_classes", "function_class"]

FAMILIES: dict[str, type[FunctionClass] | FunctionClass] = {
    "linear": Hermite(1),
    "quadratic": Hermite(2),
    "cubic": Hermite(3),
    "quartic": Hermite(4),
    "sparse_linear": SparseLinear,
    "noisy_linear": NoisyLinear,
    "linear_classification": LinearClassification,
    "leaky_relu": LeakyReLU,
    "sinusoid": Sinusoid,
    "coordinatewise_quadratic": CoordinatewiseQuadratic,
    "general_quadratic": GeneralQuadratic,
    "relu_network": ReLUNetwork,
    "decision_tree": DecisionTree,
    "sparse_parity": SparseParity,
    "conjunction": Conjunction,
    "associative_recall": AssociativeRecall,
    "prototypes": Prototypes,
    "markov_chain": MarkovChain,
}


def function_class(spec: str) -> FunctionClass:
    """The function class called NAME or NAME:PARAMETER.

    Raises:
        UserError: there is none, or its parameter is not valid.

    >>> function_class("sparse_linear:2")
    SparseLinear(nonzero=2)
    """
    return OwnData() if spec == DATA else from_registry("function class", spec, FAMILIES)


def choose_classes(classes: str | Sequence[str] | None, default: Sequence[str]) -> list[str]:
    """The function classes that a user names, or the default ones.

    Args:
        classes: names, or text such as `linear,cubic`; None takes the default.
        default: those of a run.

    Raises:
        UserError: a class is unknown or named twice.

    >>> choose_classes("linear, cubic", ["quadratic"]), choose_classes(None, ["quadratic"])
    (['linear', 'cubic'], ['quadratic'])
    """
    if isinstance(classes, str):
        classes = [name.strip() for name in classes.split(",")]
    if classes is not None and not isinstance(classes, Iterable):
        raise UserError(f"classes={classes!r}: names of function classes are needed")
    if classes is not None and not [*classes]:
        raise UserError("no function class is named: name one or more, or leave them out for those of the run")
    names = list(classes or default)
    if len(set(names)) < len(names):
        raise UserError(f"--classes {','.join(names)}: a class is named twice")
    for name in names:
        function_class(name)
    return names
