"""What models learn: function classes, inputs, prompts, and the baselines they are compared with."""
