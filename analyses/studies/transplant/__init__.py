"""Does a run that begins with parts of a trained model leave its plateau? The study and its parts."""
