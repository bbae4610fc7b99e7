"""Architectures other than the default one, for tests that hold every operation against an oracle."""

from typing import Any

VARIANTS: dict[str, dict[str, Any]] = {
    "no norm": {"norm": "none", "init_std": 0.1},
    "rms, narrow relu": {"norm": "rms", "act": "relu", "d_mlp": 24},
    "attention only": {"d_mlp": 0},
    "rotary, silu": {"positions": "rotary", "act": "silu"},
    "no positions, exact gelu": {"positions": "none", "act": "gelu", "eps": 0.01},
    "llama-like": {"norm": "rms", "positions": "rotary", "act": "silu"},
    "bare": {"init_std": 0.1, "norm": "none", "positions": "none", "d_mlp": 0},
}
"""Settings of `ModelConfig`."""
WITH_MLPS = {name: choices for name, choices in VARIANTS.items() if choices.get("d_mlp") != 0}
WITH_NORMS = {name: choices for name, choices in WITH_MLPS.items() if choices.get("norm") != "none"}
"""Those whose twin in TransformerLens has every site that an oracle needs."""
