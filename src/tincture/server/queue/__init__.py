"""Jobs: their order, the processes that do them, and what they report."""
