"""What Tincture reads and writes, in the formats of the tools around it."""
