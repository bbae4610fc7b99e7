"""The model under study: heads, positions, the engine, the bridge to TransformerLens, self-checks."""
