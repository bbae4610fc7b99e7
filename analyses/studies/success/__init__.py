"""What sets models that learned in context apart from those that stayed on the plateau? The study and its parts."""
