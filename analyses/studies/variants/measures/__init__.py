"""Measures of variants: their names, the measures of every model, and the comparison with the reference."""
