"""What runs left behind: their lists, comparisons, and how one is made again; nothing here loads torch."""
