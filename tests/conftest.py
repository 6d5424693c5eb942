from __future__ import annotations

import hypothesis
import pytest

from tests.checkpoints import Checkpoints
from tests.support import tiny_model
from tincture.models.stable_diffusion import StableDiffusion


def pytest_configure(config: pytest.Config) -> None:
    # An example that takes long says something of the machine, nothing of the code.
    hypothesis.settings.register_profile("patient", deadline=None)
    hypothesis.settings.load_profile("patient")
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


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Checkpoints:
    """Checkpoints of every family, for tests that only read them."""
    return Checkpoints(tmp_path_factory.mktemp("checkpoints"))
