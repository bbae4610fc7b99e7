"""How many heads does each layer need? The study and its parts."""
