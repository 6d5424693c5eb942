from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.unit.preprocessing.tiny import WD_SIZE, WD_TAGS, write_onnx, write_wd
from tincture.errors import ModelError, UsageError
from tincture.preprocessing import wd_tagger
from tincture.preprocessing.booru_labels import Label
from tincture.preprocessing.wd_tagger import WdTagger, read_labels

TAGS = [name for name, _, _ in WD_TAGS]


def tagger(folder: Path, batch_size: int = 8, device: str = "cpu") -> WdTagger:
    return WdTagger(folder / "model.onnx", folder / "selected_tags.csv", device=device, batch_size=batch_size)


def likely(found: WdTagger, picture: Image.Image) -> set[str]:
    """Tags that tell something about the picture."""
    (values,) = found.probabilities([picture])
    assert values.shape == (len(TAGS),)
    return {tag for tag, value in zip(TAGS, values, strict=True) if value > 0.5} - {"general", "some_one"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wd(tmp_path_factory.mktemp("tagger"))


@pytest.mark.parametrize(
    ("color", "tags"),
    [
        ("blue", {"blue_theme"}),
        ("lime", {"green_theme_(colour)"}),
        ("red", {"red_theme"}),
        ("yellow", {"red_theme", "green_theme_(colour)"}),
        ("black", set()),
    ],
)
def test_the_model_sees_blue_first_and_values_up_to_255(folder: Path, color: str, tags: set[str]) -> None:
    assert likely(tagger(folder), Image.new("RGB", (40, 40), color)) == tags


def test_pictures_lie_in_the_middle_of_a_white_square(folder: Path) -> None:
    found = tagger(folder)
    wide, tall = Image.new("RGB", (64, 32), "blue"), Image.new("RGB", (20, 90), "blue")
    assert "white_above" in likely(found, wide) and "white_at_the_left" not in likely(found, wide)
    assert "white_at_the_left" in likely(found, tall) and "white_above" not in likely(found, tall)


def test_pixels_are_those_of_the_picture() -> None:
    values = np.random.default_rng(0).integers(0, 256, (WD_SIZE, WD_SIZE, 3), dtype=np.uint8)
    pixels = wd_tagger._pixels(Image.fromarray(values), WD_SIZE)
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels[:, :, ::-1], values)
    wide = wd_tagger._pixels(Image.fromarray(values[:4]), WD_SIZE)
    np.testing.assert_array_equal(wide[2:6, :, ::-1], values[:4])
    assert (wide[:2] == 255).all() and (wide[6:] == 255).all()


@pytest.mark.parametrize("batch", ["N", 1, 4])
def test_any_number_of_pictures_gives_the_same(tmp_path: Path, batch: str | int) -> None:
    pictures = [Image.new("RGB", (10 + i, 16), (50 * i, 20, 250 - 50 * i)) for i in range(6)]
    found = tagger(write_wd(tmp_path, batch=batch), batch_size=4)
    together = np.stack(found.probabilities(pictures))
    alone = np.stack([found.probabilities([picture])[0] for picture in pictures])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert len(np.unique(together, axis=0)) == 6


def test_kinds_of_labels(folder: Path) -> None:
    assert tagger(folder).labels[:2] == [Label("general", "rating"), Label("blue_theme", "general")]
    assert tagger(folder).labels[-1] == Label("some_one", "character")


def test_labels_with_commas_quotes_and_a_byte_order_mark(tmp_path: Path) -> None:
    table = tmp_path / "tags.csv"
    table.write_text('tag_id,name,category,count\n1,"a,b",0,5\n2,"say ""hi""",4,5\n', encoding="utf-8-sig")
    assert read_labels(table) == [Label("a,b"), Label('say "hi"', "character")]


@pytest.mark.parametrize("content", ["", "tag_id,name,category,count\n", "a,b\n1,2\n", "name,category\n\xff"])
def test_broken_table(tmp_path: Path, content: str) -> None:
    table = tmp_path / "tags.csv"
    table.write_bytes(content.encode("latin-1"))
    with pytest.raises(ModelError, match=r"table of tags .*tags\.csv"):
        read_labels(table)


@settings(deadline=None)
@given(st.binary() | st.text('tag_id,name0\n\r"\0;ü').map(lambda text: f"name,category\n{text}".encode()))
def test_any_bytes_are_a_table_or_a_clear_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    table = tmp_path_factory.getbasetemp() / "any.csv"
    table.write_bytes(content)
    try:
        labels = read_labels(table)
    except ModelError:
        return
    assert labels and all(label.name for label in labels)


def test_table_of_another_model(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "tags.csv"
    table.write_text("tag_id,name,category,count\n1,fox,0,5\n")
    with pytest.raises(ModelError, match=r"knows 8 tags and .* lists 1; they belong to different models"):
        WdTagger(folder / "model.onnx", table, device="cpu", batch_size=1)


def test_damaged_model(tmp_path: Path) -> None:
    write_wd(tmp_path)
    (tmp_path / "model.onnx").write_bytes((tmp_path / "model.onnx").read_bytes()[:100])
    with pytest.raises(ModelError, match=r"model\.onnx cannot be loaded as an ONNX model"):
        tagger(tmp_path)


def test_model_of_another_layout(tmp_path: Path) -> None:
    write_wd(tmp_path, batch=1)
    write_onnx(tmp_path / "model.onnx", np.ones((10, 8)), np.ones(8), [1, 3, WD_SIZE, WD_SIZE])
    with pytest.raises(ModelError, match=r"takes input of shape \[1, 3, 8, 8\]; taggers of the WD14 family"):
        tagger(tmp_path)


def test_values_that_are_no_probabilities(tmp_path: Path) -> None:
    write_wd(tmp_path)
    write_onnx(tmp_path / "model.onnx", np.ones((5, 8)), np.ones(8), ["N", WD_SIZE, WD_SIZE, 3], end="Identity")
    with pytest.raises(ModelError, match="not of the WD14 family"):
        tagger(tmp_path).probabilities([Image.new("RGB", (8, 8), "white")])


def test_onnxruntime_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match=r"pip install 'tincture\[tag\]'"):
        tagger(folder)


@pytest.mark.parametrize("device", ["mps", "cuda:x", "gpu"])
def test_device_that_onnxruntime_does_not_know(folder: Path, device: str) -> None:
    with pytest.raises(UsageError, match=f"Device '{device}' cannot run ONNX taggers; give auto, cpu, cuda or cuda:N"):
        tagger(folder, device=device)


def test_cuda_without_its_onnxruntime(folder: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(UsageError, match=r"made for the CPU.*onnxruntime-gpu"):
        tagger(folder, device="cuda:1")


def test_the_best_device_is_the_first_gpu_that_onnxruntime_knows() -> None:
    available = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    assert wd_tagger._providers("auto", available) == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert wd_tagger._providers("auto", ["CoreMLExecutionProvider", "CPUExecutionProvider"]) == ["CPUExecutionProvider"]
    assert wd_tagger._providers("cuda:1", available) == [("CUDAExecutionProvider", {"device_id": "1"})]
    assert wd_tagger._providers("cpu", available) == ["CPUExecutionProvider"]
