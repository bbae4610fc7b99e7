"""Any torch model, or any function from a set of heads to losses: the same causal test with the same statistics."""
