"""Several adapters made into one file, and one made smaller or weaker."""
