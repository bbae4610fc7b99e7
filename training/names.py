"""The names that `--help` shows, where importing what they stand for would take seconds.

tests/test_cli.py keeps them equal to the registries.
"""

CLASS_NAMES = (
    "linear",
    "quadratic",
    "cubic",
    "quartic",
    "sparse_linear",
    "noisy_linear",
    "linear_classification",
    "leaky_relu",
    "sinusoid",
    "coordinatewise_quadratic",
    "general_quadratic",
    "relu_network",
    "decision_tree",
    "sparse_parity",
    "conjunction",
    "associative_recall",
    "prototypes",
    "markov_chain",
)
INPUT_NAMES = ("gaussian", "skewed", "student_t", "laplace", "cauchy", "uniform")
SHIFT_NAMES = (
    "none",
    "scale_x",
    "scale_w",
    "noise",
    "half_subspace",
    "random_quadrants",
    "orthogonal_query",
    "repeated_query",
    "beyond",
)
BASELINE_NAMES = (
    "least_squares",
    "ridge",
    "lasso",
    "averaging",
    "gradient_descent_1",
    "gradient_descent_10",
    "nearest_neighbours",
    "tree",
    "lookup",
)
