"""What people set, with default, help and check of each in one place; loads no torch."""

from tincture.settings.preprocess import PreprocessSettings
from tincture.settings.train import TrainSettings

__all__ = ["PreprocessSettings", "TrainSettings"]
