from __future__ import annotations

import pytest

from tests.support import tiny_model
from tincture.models.stable_diffusion import StableDiffusion


@pytest.fixture
def model() -> StableDiffusion:
    """A fresh tiny model."""
    return tiny_model()


@pytest.fixture(scope="session")
def shared_model() -> StableDiffusion:
    """One tiny model for tests that only read it."""
    return tiny_model()
