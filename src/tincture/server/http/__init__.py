"""The process, its addresses and its answers."""
