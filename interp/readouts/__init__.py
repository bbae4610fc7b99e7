"""What activations say: the implied prediction by depth, what is decodable where, and whether the model uses it."""
