"""The package webuiapi, unchanged, as a client of a real server on picto."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webuiapi  # type: ignore[import-untyped]
from numpy.typing import NDArray
from PIL import Image

from tests.runs import write_pictures
from tests.unit.server.live import live
from tincture.adapters.embedding import Embedding
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.server.app import build_app
from tincture.server.service import Service
from tincture.settings.server import ServerSettings
from tincture.workspace import Workspace

pytestmark = pytest.mark.slow

PATIENCE_S = 240.0
CAPTIONS = ("a small red moon", "a big blue star", "a green ring", "a dotted heart")
TRAINING = {"data_root": "pictures", "create_image_every": 0, "save_embedding_every": 0, "learn_rate": 0.005}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("workspace")
    write_pictures(root / "pictures", CAPTIONS, side=64)
    return root


@pytest.fixture(scope="module")
def api(root: Path) -> Iterator[webuiapi.WebUIApi]:
    service = Service(Workspace(root), ServerSettings(device=("cpu",)))
    with live(build_app(service, page=False)) as port:
        yield webuiapi.WebUIApi(port=port, steps=2)


def post(api: webuiapi.WebUIApi, endpoint: str, **arguments: Any) -> str:
    """What the client finds in ``info``; it has no calls of its own for creating and training."""
    return str(api.custom_post(f"sdapi/v1/{endpoint}", payload=arguments).info)


def pixels(result: Any) -> list[NDArray[np.uint8]]:
    return [np.asarray(image.convert("RGB")) for image in result.images]


def waited(asked: Callable[[], Any]) -> Any:
    """The first answer that is true."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if found := asked():
            return found
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def in_background(act: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Begins a call that blocks; the list gets what it returns, or its error."""
    ended: list[Any] = []

    def run() -> None:
        try:
            ended.append(act())
        except Exception as error:
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, ended


def test_what_a_client_asks_for_when_it_starts(api: webuiapi.WebUIApi) -> None:
    assert not (api.has_controlnet or api.has_adetailer or api.has_animatediff)
    assert "Euler a" in api.util_get_sampler_names()
    assert api.util_get_scheduler_names() == ["automatic", "karras"]
    assert api.util_get_model_names() == ["picto"]
    assert api.util_get_current_model() == "picto"
    api.util_set_model("Pict")
    assert api.get_options()["sd_model_checkpoint"] == "picto"
    assert api.get_cmd_flags()["api"] is True
    assert api.get_memory()["ram"]["total"] > 0
    assert api.get_sd_models()[0]["model_name"] == "picto"
    empty = (api.get_sd_vae, api.get_upscalers, api.get_latent_upscale_modes, api.get_loras, api.get_face_restorers)
    assert [ask() for ask in (*empty, api.get_realesrgan_models, api.get_prompt_styles)] == [[]] * 7
    assert api.refresh_checkpoints() is None
    assert (api.interrupt(), api.skip()) == ({}, None)
    api.util_wait_for_ready(check_interval=0.1)
    assert api.get_progress()["state"]["job_count"] == 0


def test_create_train_and_try(api: webuiapi.WebUIApi, root: Path) -> None:
    told = post(api, "create/embedding", name="lune", num_vectors_per_token=2, overwrite_old=False, init_text="moon")
    assert told == f"create embedding filename: {root / 'embeddings' / 'lune.pt'}"
    assert api.get_embeddings()["loaded"]["lune"]["vectors"] == 2
    previews = {"create_image_every": 2, "preview_from_txt2img": True, "preview_prompt": "lune", "preview_steps": 2}
    thread, ended = in_background(
        lambda: post(api, "train/embedding", **{**TRAINING, **previews}, embedding_name="lune", steps=4)
    )
    seen = waited(lambda: ended or (api.get_progress()["state"]["job"] == "train lune"))
    thread.join(PATIENCE_S)
    assert (seen, ended) == (
        True,
        [f"train embedding complete: filename: {root / 'embeddings' / 'lune.pt'} error: None"],
    )
    assert Embedding.load(root / "embeddings" / "lune.pt").step == 4
    assert api.get_embeddings()["loaded"]["lune"]["step"] == 4

    told = post(api, "create/hypernetwork", name="ink", overwrite_old=False, layer_structure="1, 2, 1")
    assert told.endswith("ink.pt")
    hyper = {"data_root": "pictures", "hypernetwork_name": "ink", "steps": 3, "learn_rate": "0.01"}
    assert post(api, "train/hypernetwork", **hyper, create_image_every=0).endswith("ink.pt error: None")
    assert api.get_hypernetworks() == [{"name": "ink", "path": str(root / "models" / "hypernetworks" / "ink.pt")}]

    options = {"seed": 5, "width": 64, "height": 64, "cfg_scale": 2, "negative_prompt": "red"}
    plain = api.txt2img(prompt="a lune", batch_size=2, **options)
    assert [image.size for image in plain.images] == [(64, 64)] * 2
    assert plain.info["all_seeds"] == [5, 6]
    assert plain.info["infotexts"][0].startswith("a lune\nNegative prompt: red\nSteps: 2, Sampler: Euler a")
    assert plain.parameters["seed"] == 5
    again = api.txt2img(prompt="a lune", n_iter=2, **options)
    for one, other in zip(pixels(plain), pixels(again), strict=True):
        # Drawn together and one at a time, the same sums come in another order.
        assert np.abs(one.astype(int) - other.astype(int)).max() <= 2
    inked = api.txt2img(prompt="a lune <hypernet:ink:5>", **options)
    assert not np.array_equal(pixels(plain)[0], pixels(inked)[0])
    assert api.png_info(inked.image).parameters["Prompt"] == "a lune <hypernet:ink:5>"


def test_interrupt_ends_a_training_that_saves(api: webuiapi.WebUIApi, root: Path) -> None:
    post(api, "create/hypernetwork", name="slow", overwrite_old=False)
    given = {"data_root": "pictures", "hypernetwork_name": "slow", "steps": 100000, "create_image_every": 0}
    thread, ended = in_background(lambda: post(api, "train/hypernetwork", **given))
    waited(lambda: ended or api.get_progress()["state"]["job_no"] > 0)
    assert api.get_progress()["state"]["job"] == "train slow"
    assert 0 < api.get_progress()["progress"] < 1
    api.interrupt()
    thread.join(PATIENCE_S)
    path = root / "models" / "hypernetworks" / "slow.pt"
    assert ended == [f"train hypernetwork complete: filename: {path} error: None"]
    assert 0 < Hypernetwork.load(path).step < 100000
    api.util_wait_for_ready(check_interval=0.1)


def test_progress_shows_the_newest_preview(api: webuiapi.WebUIApi) -> None:
    post(api, "create/embedding", name="shown", num_vectors_per_token=1, overwrite_old=False, init_text="*")
    given = {**TRAINING, "create_image_every": 5, "preview_from_txt2img": True, "preview_steps": 1, "steps": 100000}
    thread, ended = in_background(lambda: post(api, "train/embedding", **given, embedding_name="shown"))
    picture = waited(lambda: ended or api.get_progress()["current_image"])
    assert isinstance(picture, str), ended
    api.interrupt()
    thread.join(PATIENCE_S)
    with Image.open(io.BytesIO(base64.b64decode(picture))) as shown:
        assert shown.size == (64, 64)


def test_failures_are_failures(api: webuiapi.WebUIApi, root: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        post(api, "train/embedding", **TRAINING, embedding_name="nobody", steps=4)
    assert caught.value.args[0] == 422
    assert "There is no embedding 'nobody'" in caught.value.args[1]
    (root / "torn").mkdir()
    (root / "torn" / "a.png").write_bytes(b"no picture")
    post(api, "create/embedding", name="hope", num_vectors_per_token=1, overwrite_old=False, init_text="*")
    with pytest.raises(RuntimeError) as caught:
        post(api, "train/embedding", **{**TRAINING, "data_root": "torn"}, embedding_name="hope", steps=4)
    assert caught.value.args[0] == 422
    assert "a.png" in caught.value.args[1]
    with pytest.raises(RuntimeError, match="enable_hr is True"):
        api.txt2img(prompt="a moon", enable_hr=True)


def test_preprocess_makes_what_can_be_trained_on(api: webuiapi.WebUIApi, root: Path) -> None:
    given = {"process_src": "pictures", "process_dst": "crops", "process_width": 64, "process_height": 64}
    assert post(api, "preprocess", **given, preprocess_txt_action="copy", process_flip=True) == "preprocess complete"
    names = {path.name for path in (root / "crops").glob("0*")}
    assert names == {f"0000{n}-{s}-{n}.{end}" for n in range(4) for s in (0, 1) for end in ("png", "txt")}
