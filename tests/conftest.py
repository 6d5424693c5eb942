from __future__ import annotations

import pytest

from tests.support import tiny_model
from tincture.models.stable_diffusion import StableDiffusion


def pytest_configure(config: pytest.Config) -> None:
    # diffusers 0.42's schedulers mix tensors and arrays in ways numpy 2 deprecates; not ours to repair.
    for message in ("__array__ implementation", "__array_wrap__ must accept"):
        config.addinivalue_line("filterwarnings", f"ignore:{message}:DeprecationWarning")


@pytest.fixture
def model() -> StableDiffusion:
    """A fresh tiny model."""
    return tiny_model()


@pytest.fixture(scope="session")
def shared_model() -> StableDiffusion:
    """One tiny model for tests that only read it."""
    return tiny_model()
