"""How much memory a run takes, and settings so that it fits."""
