"""What is trained: small parts attached to a frozen model."""
