"""What takes a model, done in a process of its own."""
