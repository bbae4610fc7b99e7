"""Are the same heads retrospective on every class, and in every model? The study and its parts."""
