"""What do retrospective heads carry, and who reads it? The study and its parts."""
