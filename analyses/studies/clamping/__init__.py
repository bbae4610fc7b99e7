"""What does forcing or forbidding attention from y to its x during training change? The study and its parts."""
