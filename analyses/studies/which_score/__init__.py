"""Which score of a head tells what removing it costs? The study and its parts."""
