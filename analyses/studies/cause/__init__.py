"""Do retrospective heads cause in-context learning, in every model that has them? The study and its parts."""
