"""Readouts of activations: the implied prediction by depth, what probes decode, and whether the model uses it."""
