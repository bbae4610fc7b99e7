"""Makes models: function classes, prompts, curricula, the compact transformer, the trainer and its checkpoints."""
