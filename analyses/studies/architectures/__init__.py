"""Which architectures learn in context, and do their retrospective heads cause it? The study and its parts."""
