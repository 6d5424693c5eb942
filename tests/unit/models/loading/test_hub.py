"""Models of the hub, with the hub played by functions of ours."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from tests.support import save_folder, tiny_model
from tincture.errors import ModelError
from tincture.models.loading import hub
from tincture.models.loading.hub import needed_files
from tincture.models.loading.load import load_model
from tincture.models.loading.token_tables import load_words

FILES = [
    "README.md",
    "model_index.json",
    "v1-5-pruned.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.bin",
    "unet/diffusion_pytorch_model.fp16.safetensors",
    "unet/diffusion_pytorch_model.non_ema.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.fp16.safetensors",
    "text_encoder/config.json",
    "text_encoder/pytorch_model.bin",
    "text_encoder_2/config.json",
    "text_encoder_2/model-00001-of-00002.safetensors",
    "text_encoder_2/model-00002-of-00002.safetensors",
    "text_encoder_2/model.safetensors.index.json",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "scheduler/scheduler_config.json",
    "safety_checker/model.safetensors",
    "unet/onnx/model.onnx",
]


def test_one_set_of_weights_of_each_part_is_needed() -> None:
    left_out = {"README.md", "v1-5-pruned.safetensors", "safety_checker/model.safetensors", "unet/onnx/model.onnx"}
    left_out |= {f"unet/diffusion_pytorch_model.{rest}" for rest in ("bin", "fp16.safetensors", "non_ema.safetensors")}

    assert set(needed_files(FILES)) == set(FILES) - left_out


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_folder(tiny_model(), tmp_path_factory.mktemp("hub") / "tiny")


def api(listed: Callable[[str], list[str]]) -> Any:
    """The hub's interface, of which a model's list of files is used."""

    def model_info(hub_id: str, timeout: float) -> Any:
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in listed(hub_id)])

    return SimpleNamespace(model_info=model_info)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, repository: Path, tmp_path: Path) -> list[Any]:
    """What the hub was asked for. It has one model, which it copies to a cache."""
    requests: list[Any] = []
    cache = tmp_path / "cache"

    def listed(hub_id: str) -> list[str]:
        requests.append(hub_id)
        return [path.relative_to(repository).as_posix() for path in repository.rglob("*") if path.is_file()]

    def snapshot(hub_id: str, *, local_files_only: bool = False, allow_patterns: Any = ()) -> str:
        if not local_files_only:
            requests.append(sorted(allow_patterns))
            for name in allow_patterns:
                (cache / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(repository / name, cache / name)
        elif not cache.exists():
            raise LocalEntryNotFoundError("not there")
        return str(cache)

    monkeypatch.setattr(hub, "HfApi", lambda: api(listed))
    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    return requests


def test_a_model_is_downloaded_once(asked: list[Any]) -> None:
    for _ in range(2):
        model = load_model("owner/tiny")
        assert (model.name, len(model.hash)) == ("tiny", 10)

    assert asked[0] == "owner/tiny" and "unet/config.json" in asked[1] and len(asked) == 2


def test_token_tables_are_those_of_what_is_downloaded(asked: list[Any]) -> None:
    words, model = load_words("owner/tiny"), load_model("owner/tiny")

    assert (words.name, words.hash) == (model.name, model.hash)
    assert words.text.token_embeddings("moon")["clip_l"].equal(model.text.token_embeddings("moon")["clip_l"])
    assert len(asked) == 2


def test_what_is_here_in_part_is_completed(asked: list[Any], tmp_path: Path) -> None:
    load_model("owner/tiny")
    shutil.rmtree(tmp_path / "cache" / "vae")

    assert load_model("owner/tiny").name == "tiny"
    assert len(asked) == 4


def raising(error: Exception) -> Callable[[str], list[str]]:
    def listed(hub_id: str) -> list[str]:
        raise error

    return listed


RESPONSE: Any = SimpleNamespace(headers={}, request=None)
FAILURES = {
    "offline": (raising(ConnectionError("no route to host\nat all")), r"cannot be reached \(no route to host\)"),
    "unknown": (raising(RepositoryNotFoundError("x", response=RESPONSE)), "cannot be had .*: there is none for you"),
    "gated": (raising(GatedRepoError("x", response=RESPONSE)), "access to it must be asked for"),
    "no folder": (
        lambda hub_id: ["model.safetensors"],
        "has no model_index.json; download the checkpoint",
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_what_cannot_be_had_is_told(case: str, asked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    listed, message = FAILURES[case]
    monkeypatch.setattr(hub, "HfApi", lambda: api(listed))

    with pytest.raises(ModelError, match=message) as caught:
        load_model("owner/tiny")

    assert "'owner/tiny'" in str(caught.value) and "\n" not in str(caught.value)


def test_without_a_network_the_sentence_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the hub's own library, told to stay offline."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    with pytest.raises(ModelError, match="'owner/name' is no local file or folder, and the Hugging Face hub cannot be"):
        load_model("owner/name")


def test_a_hub_that_cannot_be_reached_is_asked_once_and_silently(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """With the hub's own library, and a network that answers nothing."""
    asked: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        asked.append(arguments)
        raise OSError("no such network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    with pytest.raises(ModelError, match=r"the Hugging Face hub cannot be reached .*; give the path of a model"):
        load_model("owner/name")

    assert len(asked) == 1
    assert capfd.readouterr() == ("", "") and not caplog.records
