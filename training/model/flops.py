"""Floating-point operations of a forward pass and a training step, counted from the architecture.

A matrix product of [a b] by [b c] is 2abc. Counted are the matrix products that `Transformer.predict` performs: keys
and values at every token, queries, outputs and MLPs too but in the last layer only at the x tokens, attention only
where it may look. Element-wise work is left out. A backward pass costs two forward passes, one product for the
gradient of the weights and one for that of the activations, but for the prompts, which need none.
"""

from training.config.config import ModelConfig


def forward_flops(model: ModelConfig, n_points: int, n_instruction: int = 0) -> int:
    """For one prompt.

    >>> tiny = ModelConfig(n_layers=3, n_heads=8, d_model=64, n_dims=4, n_ctx=32)
    >>> forward_flops(tiny, 16)
    8250880
    """
    n_pos = 2 * n_points - 1 + n_instruction
    width = model.d_model
    total = 2 * n_pos * model.n_dims * width + 2 * n_points * width
    for layer in range(model.n_layers):
        last = layer == model.n_layers - 1
        n_queries = n_points if last else n_pos
        # an x token sees itself and what stands before it: on average half of the stream and half a token more
        seen = sum(range(1 + n_instruction, n_pos + 1, 2)) if last else n_pos * (n_pos + 1) // 2
        projections = 2 * (n_pos + n_queries) * width**2  # keys and values; queries and outputs
        mlp = 2 * n_queries * width * model.mlp_width
        total += 2 * (projections + mlp + 2 * seen * width)
    return total


def step_flops(model: ModelConfig, n_prompts: int, n_points: int, n_instruction: int = 0) -> int:
    """For one update on a batch."""
    read_in = 2 * (2 * n_points - 1 + n_instruction) * model.n_dims * model.d_model
    return n_prompts * (3 * forward_flops(model, n_points, n_instruction) - read_in)
