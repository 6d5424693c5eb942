"""What this software calls itself in files and answers."""

VERSION = "0.1.0"
