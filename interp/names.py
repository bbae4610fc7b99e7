"""Names for `--help`, listed here because importing their definitions takes seconds (see `training.names`).

Types of names, for editors: functions take other text as well, since entries of your own can be registered.
"""

from typing import Literal, get_args

DESIGN_NAMES = ("remove", "keep", "cumulative", "pairs")
ModeName = Literal[
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
]
MODE_NAMES = get_args(ModeName)
DEFAULT_MODES: tuple[ModeName, ...] = ("zero", "mean", "resample")

SCORE_DEFINITIONS = {
    "retrospective": "mean attention from y_i to x_i, maximum 1",
    "paper": "as in the published heat maps: attention from y_i to x_i, sum over the first six pairs / 12, maximum 0.5 "
    "(the authors' code with 12 layers; in general, the sum over the first n_layers // 2 pairs, divided by n_layers)",
    "previous_token": "mean attention to the token before; queries: all but the first token",
    "self": "mean attention of a token to itself; queries: all but the first token, which can only attend to itself",
    "first_token": "mean attention to the first token, be it x_1 or an instruction; queries: all after it",
    "x_to_earlier_x": "mean attention from x_i to all earlier x together, from the second pair on",
    "x_to_earlier_y": "mean attention from x_i to all earlier y together, from the second pair on",
    "lookup": "mean attention from x_i to the y of the nearest earlier x (of all that are equally near), from the "
    "second pair on",
    "y_to_earlier_y": "mean attention from y_i to all earlier y together, from the second pair on",
    "function_vector": "no attention but an effect: of the way from permuted to intact examples, the share that the "
    "head's output at the query gives, averaged over other prompts of the same function, maximum 1",
}
ScoreName = Literal[
    "retrospective",
    "paper",
    "previous_token",
    "self",
    "first_token",
    "x_to_earlier_x",
    "x_to_earlier_y",
    "lookup",
    "y_to_earlier_y",
    "function_vector",
]
SCORE_NAMES = get_args(ScoreName)
WEIGHTING_DEFINITIONS = {
    "pattern": "the attention itself",
    "value": "attention times the length of what it moves, |v_k W_O|, as a share of the sum over keys",
    "derivative": "length of d(z_q W_O) / d(resid_pre_k), through values, pattern and LayerNorm, as a share of the sum "
    "over keys",
}
WeightingName = Literal[
    "pattern",
    "value",
    "derivative",
]
WEIGHTING_NAMES = get_args(WeightingName)

CorruptionName = Literal[
    "function",
    "inputs",
    "prompt",
    "class",
    "permuted",
    "pair:J",
    "noise",
]
CORRUPTION_NAMES = get_args(CorruptionName)
SiteName = Literal[
    "resid_pre",
    "resid_mid",
    "resid_post",
    "attn_out",
    "mlp_out",
    "z",
    "q",
    "k",
    "v",
    "pattern",
]
SITE_NAMES = get_args(SiteName)
MetricName = Literal[
    "effect",
    "nmse",
    "distance_to_clean",
    "nmse_above_no_context",
]
METRIC_NAMES = get_args(MetricName)
NodeMethod = Literal[
    "exact",
    "gradient",
    "ig",
    "ig-activations",
    "atp",
]
NODE_METHOD_NAMES = get_args(NodeMethod)
EdgeMethod = Literal[
    "exact",
    "eap",
    "eap-ig",
]
EDGE_METHOD_NAMES = get_args(EdgeMethod)
