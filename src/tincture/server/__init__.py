"""One process with everything: the HTTP API, a queue that survives power cuts, and the web page."""
