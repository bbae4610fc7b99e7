"""The names that `--help` shows, where importing what they stand for would take seconds (see `training.names`)."""

DESIGN_NAMES = ("remove", "keep", "cumulative", "pairs")
MODE_NAMES = (
    "zero",
    "mean",
    "mean:global",
    "mean:parity",
    "resample",
    "resample:function",
    "resample:class",
    "resample:inputs",
    "noise",
    "optimal",
)
