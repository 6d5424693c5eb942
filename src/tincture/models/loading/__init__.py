"""From names, paths and hashes to a model."""
