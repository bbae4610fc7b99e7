"""Asks questions: one file per question, from a checkpoint to a tidy table, a figure and a sentence."""
