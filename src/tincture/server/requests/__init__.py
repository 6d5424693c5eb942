"""What a request may ask, and which places it may name."""
