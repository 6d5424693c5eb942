from __future__ import annotations

import pytest

from tests.support import tiny_model
from tincture.models.stable_diffusion import StableDiffusion


def pytest_configure(config: pytest.Config) -> None:
    # diffusers 0.42 turns tensors into arrays in a way numpy 2 deprecates; ours to wait for, not to repair.
    config.addinivalue_line("filterwarnings", "ignore:__array__ implementation:DeprecationWarning:diffusers")


@pytest.fixture
def model() -> StableDiffusion:
    """A fresh tiny model."""
    return tiny_model()


@pytest.fixture(scope="session")
def shared_model() -> StableDiffusion:
    """One tiny model for tests that only read it."""
    return tiny_model()
