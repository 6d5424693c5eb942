"""Sweeps in the server: the queue does their runs."""
