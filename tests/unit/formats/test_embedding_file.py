"""Every format there and back, and by the rules of every program that reads it."""

from __future__ import annotations

import dataclasses
import json
import pickletools
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.textual_inversion import TextualInversionLoaderMixin
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.support import tiny_model
from tests.unit.formats.webui_gate import refusals
from tincture.adapters.embedding import Embedding
from tincture.errors import FileFormatError, TinctureError, UsageError
from tincture.formats.embedding_content import EmbeddingFile
from tincture.formats.embedding_file import EMBEDDING_WRITERS, read_embedding_file, write_embedding_file
from tincture.formats.files import atomic_torch_save
from tincture.formats.safetensors_file import read_safetensors

GOLDEN = Path(__file__).parents[2] / "golden"
CASES: list[dict[str, Any]] = json.loads((GOLDEN / "embeddings.json").read_text())
NAMES = [case["name"] for case in CASES]
PROVENANCE = {
    "software": "tincture 1",
    "settings": {"steps": 3, "learning_rate": 5e-3},
    "data_hash": "ab",
    "author": "A. Uthor",
    "license": "CC0-1.0",
    "description": "a ferry",
    "date": "2026-11-21",
    "metadata": {"ss_tag": "kept", "modelspec.thumbnail": "data:,"},
}
KEPT_BY_ALL = ("pt", "safetensors", "kohya", "png", "webp")


def vectors(rows: int = 2, width: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def example(**changes: Any) -> EmbeddingFile:
    file = EmbeddingFile({"clip_l": vectors()}, "some name", 7, "model", "0123456789", PROVENANCE)
    return dataclasses.replace(file, **changes)


def sdxl() -> EmbeddingFile:
    return example(vectors={"clip_l": vectors(2, 768), "clip_g": vectors(2, 1280)})


def assert_same(read: EmbeddingFile, written: EmbeddingFile) -> None:
    for encoder, rows in written.vectors.items():
        assert torch.equal(read.vectors[encoder], rows)
        assert read.vectors[encoder].dtype == torch.float32
    same = {field: getattr(written, field) for field in ("name", "step", "model_name", "model_hash", "provenance")}
    assert {field: getattr(read, field) for field in same} == same
    assert list(read.vectors) == list(written.vectors)


# --- golden files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pt", "text-and-pixels.png", "pixels-only.png"])
@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_golden_files_hold_what_they_should(case: dict[str, Any], kind: str) -> None:
    file = read_embedding_file(GOLDEN / f"{case['name']}.{kind}")
    rows = file.vectors["clip_l"]
    assert (file.name, file.step, file.layout, file.lost) == (case["name"], case["step"], "webui", ())
    assert tuple(rows.shape) == (case["vectors"], case["dim"])
    assert rows.flatten()[:4].tolist() == pytest.approx(case["first"])
    assert rows.double().sum().item() == pytest.approx(case["sum"], abs=1e-4)
    assert (file.model_name, file.model_hash) == ("v1-5-pruned-emaonly", "6ce0161689")


@pytest.mark.parametrize("name", NAMES)
def test_golden_files_round_trip(name: str, tmp_path: Path) -> None:
    Embedding.load(GOLDEN / f"{name}.pt").save(tmp_path / "copy.pt")
    original = torch.load(GOLDEN / f"{name}.pt", weights_only=True)
    copy = torch.load(tmp_path / "copy.pt", weights_only=True)
    assert list(copy) == list(original)
    assert torch.equal(copy["string_to_param"].pop("*"), original["string_to_param"].pop("*"))
    assert copy == original


def test_a_golden_file_with_wrong_bytes_is_read_or_refused(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)

    def drawn(most: int) -> int:
        return int(torch.randint(1, most, (1,), generator=generator))

    for kind, least in (("pt", 8), ("text-and-pixels.png", 3)):
        original = (GOLDEN / f"gold-one.{kind}").read_bytes()
        refused = 0
        for _ in range(60):
            content = bytearray(original)
            content[drawn(1500)] ^= drawn(256)
            (tmp_path / "file").write_bytes(content)
            try:
                read_embedding_file(tmp_path / "file")
            except TinctureError:
                refused += 1
        assert refused >= least


# --- by content -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EMBEDDING_WRITERS)
@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors", ".png", ".webp", ""])
def test_the_content_tells_the_format_and_not_the_name(tmp_path: Path, kind: str, suffix: str) -> None:
    file = sdxl() if kind == "sdxl" else example()
    EMBEDDING_WRITERS[kind](tmp_path / f"file{suffix}", file)
    read = read_embedding_file(tmp_path / f"file{suffix}")
    assert all(torch.equal(read.vectors[encoder], rows) for encoder, rows in file.vectors.items())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("parameter_dict", [True, False])
def test_files_of_2022_are_read(tmp_path: Path, zipped: bool, parameter_dict: bool) -> None:
    terms = {"*": torch.nn.Parameter(vectors(3))}
    content = {
        "string_to_token": {"*": torch.tensor(265)},
        "string_to_param": torch.nn.ParameterDict(terms) if parameter_dict else terms,
    }
    torch.save(content, tmp_path / "old.pt", _use_new_zipfile_serialization=zipped)
    file = read_embedding_file(tmp_path / "old.pt")
    assert torch.equal(file.vectors["clip_l"], vectors(3))
    assert (file.name, file.step, file.model_name) == ("old", 0, "")


@pytest.mark.parametrize("kind", ["preview.png", "Preview.PNG", "preview.webp"])
def test_previews_are_never_embeddings(tmp_path: Path, kind: str) -> None:
    shutil.copy(GOLDEN / "gold-one.pixels-only.png", tmp_path / f"gold.{kind}")
    with pytest.raises(FileFormatError, match="preview picture"):
        read_embedding_file(tmp_path / f"gold.{kind}")


# --- round trips ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KEPT_BY_ALL)
def test_every_trait_survives(tmp_path: Path, kind: str) -> None:
    EMBEDDING_WRITERS[kind](tmp_path / "file", example())
    assert_same(read_embedding_file(tmp_path / "file"), example())


def test_every_trait_survives_for_sdxl(tmp_path: Path) -> None:
    write_embedding_file(tmp_path / "file.safetensors", sdxl())
    read = read_embedding_file(tmp_path / "file.safetensors")
    assert_same(read, sdxl())
    assert read.layout == "sdxl"


def test_a_chain_of_conversions_comes_back_to_the_byte(tmp_path: Path) -> None:
    EMBEDDING_WRITERS["pt"](tmp_path / "0", example())
    for number, kind in enumerate((*KEPT_BY_ALL[1:], "pt")):
        EMBEDDING_WRITERS[kind](tmp_path / str(number + 1), read_embedding_file(tmp_path / str(number)))
    assert (tmp_path / "5").read_bytes() == (tmp_path / "0").read_bytes()


@pytest.mark.parametrize("kind", KEPT_BY_ALL)
def test_a_thumbnail_of_another_program_survives(tmp_path: Path, kind: str) -> None:
    file = example(provenance={"metadata": {"modelspec.thumbnail": "data:" + "A" * 1_000_000}})
    EMBEDDING_WRITERS[kind](tmp_path / "file", file)
    assert read_embedding_file(tmp_path / "file").provenance == file.provenance


def test_a_bin_keeps_name_and_vectors_only(tmp_path: Path) -> None:
    EMBEDDING_WRITERS["bin"](tmp_path / "file", example())
    assert_same(read_embedding_file(tmp_path / "file"), EmbeddingFile({"clip_l": vectors()}, "some name"))


FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
ROWS = st.integers(1, 3).flatmap(
    lambda width: st.lists(st.lists(FINITE, min_size=width, max_size=width), min_size=1, max_size=3)
)
TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
KEYS = ("string_to_param", "emb_params", "emp_params", "*", "clip_l", "clip_g")


@settings(max_examples=25, deadline=None)
@given(
    rows=ROWS,
    name=TEXT.filter(lambda text: text not in KEYS),
    step=st.integers(0, 2**40),
    model=TEXT,
    provenance=st.dictionaries(
        TEXT.filter(lambda text: text not in PROVENANCE), st.integers() | TEXT | st.lists(st.booleans())
    ),
    kind=st.sampled_from(KEPT_BY_ALL),
)
def test_whatever_is_written_is_read(
    rows: list[list[float]], name: str, step: int, model: str, provenance: dict[str, Any], kind: str
) -> None:
    file = EmbeddingFile({"clip_l": torch.tensor(rows)}, name, step, model, model[:10], provenance)
    with tempfile.TemporaryDirectory() as folder:
        EMBEDDING_WRITERS[kind](Path(folder) / "file", file)
        assert_same(read_embedding_file(Path(folder) / "file"), file)


@pytest.mark.parametrize("kind", ["pt", "bin", "safetensors", "kohya", "png", "webp"])
def test_two_text_encoders_fit_into_sdxls_files_only(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UsageError, match=r"vectors for clip_l, clip_g, but .*sdxl"):
        EMBEDDING_WRITERS[kind](tmp_path / "file", sdxl())
    assert list(tmp_path.iterdir()) == []


def test_one_text_encoder_does_not_fit_into_sdxls_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="those of clip_l and clip_g"):
        EMBEDDING_WRITERS["sdxl"](tmp_path / "file", example())


@pytest.mark.parametrize(
    ("suffix", "start"), [(".pt", b"PK"), (".bin", b"PK"), (".PNG", b"\x89PNG"), (".webp", b"RIFF"), ("", b"PK")]
)
def test_the_suffix_chooses_what_is_written(tmp_path: Path, suffix: str, start: bytes) -> None:
    write_embedding_file(tmp_path / f"e{suffix}", example())
    assert (tmp_path / f"e{suffix}").read_bytes().startswith(start)


# --- the rules of other programs --------------------------------------------------------------------------------------


def webui(content: Any) -> torch.Tensor:
    """The webui of 2023: its own dict with one term, or one tensor under any key."""
    if "string_to_param" in content:
        terms = content["string_to_param"]
        assert len(terms) == 1
        assert isinstance(content["name"], str) and isinstance(content["step"], int)
        return next(iter(terms.values()))
    assert len(content) == 1
    value = next(iter(content.values()))
    return value if value.ndim == 2 else value[None]


def forge(content: Any) -> torch.Tensor:
    """Forge and later webuis: likewise, and SDXL's pair."""
    if "clip_g" in content and "clip_l" in content:
        assert set(content) == {"clip_g", "clip_l"}
        return torch.cat((content["clip_l"], content["clip_g"]), dim=1)
    return webui(content)


def comfyui(content: Any) -> torch.Tensor:
    """ComfyUI: the first term, the text encoder's key, or the first value."""
    if "string_to_param" in content:
        return next(iter(content["string_to_param"].values()))
    return content["clip_l"] if "clip_l" in content else next(iter(content.values()))


@pytest.mark.parametrize("read", [webui, forge, comfyui])
@pytest.mark.parametrize("kind", ["pt", "bin", "safetensors", "kohya"])
def test_other_programs_read_what_is_written(tmp_path: Path, kind: str, read: Callable[[Any], torch.Tensor]) -> None:
    EMBEDDING_WRITERS[kind](tmp_path / "file", example())
    torchs = kind in ("pt", "bin")
    content = torch.load(tmp_path / "file", weights_only=True) if torchs else load_file(tmp_path / "file")
    assert torch.equal(read(content), vectors())
    assert not torchs or refusals(tmp_path / "file") == []


def test_forge_and_comfyui_read_sdxls_pair(tmp_path: Path) -> None:
    EMBEDDING_WRITERS["sdxl"](tmp_path / "file", sdxl())
    content = load_file(tmp_path / "file")
    assert forge(content).shape == (2, 2048)
    assert torch.equal(comfyui(content), vectors(2, 768))


class Pipeline(TextualInversionLoaderMixin):
    """As much of a diffusers pipeline as loads an embedding."""

    def __init__(self) -> None:
        model = tiny_model()
        self.tokenizer, self.text_encoder = model.tokenizer, model.text_encoders[0].module
        self.components: dict[str, Any] = {}
        self.hf_device_map = None


@pytest.mark.parametrize("suffix", [".pt", ".bin", ".safetensors"])
def test_diffusers_loads_what_is_written(tmp_path: Path, suffix: str) -> None:
    file = example(vectors={"clip_l": vectors(3, 32)}, name="ferry")
    write_embedding_file(tmp_path / f"e{suffix}", file)
    pipeline = Pipeline()
    pipeline.load_textual_inversion(str(tmp_path), weight_name=f"e{suffix}", local_files_only=True)
    assert pipeline.maybe_convert_prompt("a ferry", pipeline.tokenizer) == "a ferry ferry_1 ferry_2"
    ids = [pipeline.tokenizer.convert_tokens_to_ids(token) for token in ("ferry", "ferry_1", "ferry_2")]
    assert torch.equal(pipeline.text_encoder.get_input_embeddings().weight[ids].detach(), vectors(3, 32))


def test_a_pt_holds_plain_values(tmp_path: Path) -> None:
    Embedding("e", {"clip_l": vectors(4)[1:3]}, step=3).save(tmp_path / "e.pt")
    content = torch.load(tmp_path / "e.pt", weights_only=True)
    saved = content.pop("string_to_param")["*"]
    assert type(saved) is torch.Tensor
    assert saved.untyped_storage().nbytes() == 2 * 8 * 4
    assert content == {
        "string_to_token": {"*": 265},
        "name": "e",
        "step": 3,
        "sd_checkpoint": None,
        "sd_checkpoint_name": None,
    }


# --- metadata ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "file", "architecture"),
    [
        ("safetensors", example(), "stable-diffusion-v1"),
        ("kohya", example(vectors={"clip_h": vectors(1, 1024)}), "stable-diffusion-v2"),
        ("sdxl", sdxl(), "stable-diffusion-xl-v1-base"),
    ],
)
def test_safetensors_follow_the_modelspec_standard(
    tmp_path: Path, kind: str, file: EmbeddingFile, architecture: str
) -> None:
    EMBEDDING_WRITERS[kind](tmp_path / "file", file)
    _, metadata = read_safetensors(tmp_path / "file")
    assert metadata["modelspec.architecture"] == f"{architecture}/textual-inversion"
    assert metadata["modelspec.title"] == metadata["modelspec.usage_hint"] == "some name"
    assert (metadata["modelspec.author"], metadata["modelspec.license"]) == ("A. Uthor", "CC0-1.0")
    assert json.loads(metadata["tincture.provenance"])["settings"] == PROVENANCE["settings"]


def test_metadata_of_other_programs_is_kept(tmp_path: Path) -> None:
    metadata = {"modelspec.author": "B", "modelspec.title": "t", "ss_steps": "12"}
    save_file({"emb_params": vectors()}, tmp_path / "a.safetensors", metadata)
    file = read_embedding_file(tmp_path / "a.safetensors")
    assert (file.name, file.layout) == ("a", "kohya")
    assert file.provenance == {"author": "B", "metadata": {"ss_steps": "12"}}
    write_embedding_file(tmp_path / "b.safetensors", file)
    _, written = read_safetensors(tmp_path / "b.safetensors")
    assert (written["modelspec.author"], written["ss_steps"]) == ("B", "12")


def test_the_adapter_reads_and_writes_every_format(tmp_path: Path) -> None:
    Embedding("e", {"clip_l": vectors()}, step=4, provenance={"seed": 1}).save(tmp_path / "e.safetensors")
    loaded = Embedding.load(tmp_path / "e.safetensors")
    assert (loaded.name, loaded.step, loaded.provenance) == ("e", 4, {"seed": 1})
    assert torch.equal(loaded.vectors["clip_l"], vectors())


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
@pytest.mark.parametrize("name", ["emb_params", "clip_l", "string_to_param", "__metadata__"])
def test_a_name_that_is_a_key_of_another_format_is_refused(kind: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give it another name"):
        EMBEDDING_WRITERS[kind](tmp_path / "x", example(name=name))


def test_a_name_that_cannot_be_written_gives_way_to_the_files(tmp_path: Path) -> None:
    torch.save({"string_to_param": {"*": vectors()}, "name": "a\ud800"}, tmp_path / "cat.pt")
    torch.save({"a\ud800": vectors()}, tmp_path / "dog.bin")
    assert read_embedding_file(tmp_path / "cat.pt").name == "cat"
    assert read_embedding_file(tmp_path / "dog.bin").name == "dog"


# --- limits -----------------------------------------------------------------------------------------------------------


def steps_in(path: Path) -> int:
    with zipfile.ZipFile(path) as archive:
        return sum(1 for _ in pickletools.genops(archive.read("archive/data.pkl")))


def test_a_file_may_take_ten_thousand_steps_to_build_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"

    def write(others: int) -> int:
        atomic_torch_save({"string_to_param": {"*": vectors()}, "others": [7] * others}, path)
        return steps_in(path)

    least = write(2)
    # Beyond a thousand, a list is written in batches; each takes two steps more.
    longest = next(count for count in range(10_000 - least, 0, -1) if write(count) <= 10_000)
    assert write(longest) == 10_000
    assert torch.equal(read_embedding_file(path).vectors["clip_l"], vectors())
    write(longest + 1)
    with pytest.raises(FileFormatError, match="more than 10000 steps to build its values, which none needs"):
        read_embedding_file(path)
