"""Attention-pattern scores of heads, with chance levels, and single patterns."""
