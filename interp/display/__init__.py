"""The base class of results, and their display: figures, SVG, HTML for notebooks."""
