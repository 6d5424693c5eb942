"""The tab Try it."""
