"""The tab Files."""
