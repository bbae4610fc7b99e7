"""How results look: their base, HTML for notebooks, and SVG."""
