"""Attribution: effects of all nodes and edges at once from gradients, with a receipt, and the circuits they make."""
