"""The compact transformer, with HookedTransformer's names."""
