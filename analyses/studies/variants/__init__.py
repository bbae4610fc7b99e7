"""Models that differ from a reference in one thing: size, prompt length, function class, instruction."""
