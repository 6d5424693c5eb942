"""One run file over many settings: points, the runs of each, and what came of them."""
