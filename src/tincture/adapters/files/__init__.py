"""Files of adapters: what is in them, and in other formats."""
