"""The settings of a run, a file for each group: fields, help texts, checks, and what is wrong with them together."""
