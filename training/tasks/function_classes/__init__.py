"""What is learned in context. A class is called by its name, or NAME:PARAMETER (`sparse_linear:2`).

To add one: write a `FunctionClass` in one of the files here or in a new one, name it in `FAMILIES` and in
`training.names`, and give its closed forms a row in tests/training/tasks/test_function_classes.py, which checks them
all by simulation. In a notebook the entry in `FAMILIES` is enough (notebooks/concepts/extending.md).
"""

from training.tasks.function_classes.base import Baseline, FunctionClass, FunctionOfX, WeightKind
from training.tasks.function_classes.boolean import Conjunction, SparseParity
from training.tasks.function_classes.hermite import Hermite
from training.tasks.function_classes.linear import LeakyReLU, LinearClassification, NoisyLinear, Sinusoid, SparseLinear
from training.tasks.function_classes.piecewise import DecisionTree, ReLUNetwork
from training.tasks.function_classes.quadratic import CoordinatewiseQuadratic, GeneralQuadratic
from training.tasks.function_classes.sequences import AssociativeRecall, MarkovChain, Prototypes
from training.tasks.registry import from_registry

__all__ = ["FAMILIES", "Baseline", "FunctionClass", "FunctionOfX", "WeightKind", "function_class"]

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
    return from_registry("function class", spec, FAMILIES)
