"""The model under study: its heads and positions, the pass that shares work between variants, HookedTransformer, self-checks."""
