"""The processes that compute one run together: which they are, what they hand each other, how they begin and end."""
