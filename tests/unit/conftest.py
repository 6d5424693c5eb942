from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.runs import Bench, make_bench
from tests.support import save_folder
from tincture.models.stable_diffusion import StableDiffusion


@pytest.fixture(scope="session", autouse=True)
def _user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What runs remember for later ones is not that of the user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def model_folder(shared_model: StableDiffusion, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a diffusers folder."""
    return save_folder(shared_model, tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def new_bench(shared_model: StableDiffusion, model_folder: Path, tmp_path: Path) -> Callable[[str], Bench]:
    """Makes workspaces to train in, alike except for their place."""
    return lambda name: make_bench(tmp_path / name, shared_model, model_folder)


@pytest.fixture
def bench(new_bench: Callable[[str], Bench]) -> Bench:
    """One workspace to train in."""
    return new_bench("workspace")
