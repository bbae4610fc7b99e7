"""How much data each curriculum needs. The study and its parts."""
