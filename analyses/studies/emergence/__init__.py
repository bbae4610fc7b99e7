"""When do retrospective heads appear, when do they matter, and do they precede the fall of the loss? The parts."""
