"""The draws of a training run; they live in `tincture.randomness`, below the data set, which draws too."""

from tincture.randomness import generator, normal, torch_seed

__all__ = ["generator", "normal", "torch_seed"]
