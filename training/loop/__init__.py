"""The training loop: steps, optimisers, evaluations on the way, saving and resuming."""
