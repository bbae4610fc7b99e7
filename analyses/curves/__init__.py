"""Studies of error curves and training histories: who learns, who forgets, who stays, and at what price."""
