"""Which runs leave their plateaus, and when. The study and its parts."""
