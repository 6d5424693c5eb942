from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers.models.bert.tokenization_bert import BertTokenizer
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.blip.modeling_blip import BlipForConditionalGeneration

from tests.unit.preprocessing.tiny import BLIP_SIZE, BLIP_SPECIAL, BLIP_WORDS, write_blip
from tincture.errors import ModelError, UsageError
from tincture.preprocessing.blip import BlipCaptioner, clean
from tincture.preprocessing.captioning import load_captioner

COLORS = ("red", "lime", "blue", "white", "black", "orange", "purple")
PICTURES = [Image.new("RGB", (30 + 7 * i, 40), color) for i, color in enumerate(COLORS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blip(tmp_path_factory.mktemp("blip"))


@pytest.fixture
def own_folder(folder: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(folder, tmp_path / "blip")


def load(folder: Path, **changes: Any) -> BlipCaptioner:
    captioner = load_captioner(str(folder), **{"device": "cpu", "max_new_tokens": 10, **changes})
    assert isinstance(captioner, BlipCaptioner)
    return captioner


def generated(folder: Path, picture: Image.Image, **options: int) -> torch.Tensor:
    """Tokens for a picture, by the way that transformers' documentation shows."""
    model = BlipForConditionalGeneration.from_pretrained(folder).eval()
    size = {"height": BLIP_SIZE, "width": BLIP_SIZE}
    pixels = BlipImageProcessorPil(size=size)(picture, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        tokens: torch.Tensor = model.generate(pixel_values=pixels, do_sample=False, **options)[0]
    return tokens


def test_captions_are_those_of_the_model(folder: Path) -> None:
    captions = load(folder, min_new_tokens=2)(PICTURES)
    tokenizer = BertTokenizer.from_pretrained(folder)
    for picture, caption in zip(PICTURES, captions, strict=True):
        tokens = generated(folder, picture, max_new_tokens=10, min_new_tokens=2, num_beams=3)
        assert caption == clean(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=True))
    assert len(set(captions)) > 2, "the pictures must matter"
    assert not [special for special in BLIP_SPECIAL if special in " ".join(captions)]


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_captions_do_not_depend_on_the_batch(folder: Path, batch_size: int) -> None:
    captioner = load(folder, batch_size=batch_size)
    assert captioner(PICTURES) == captioner(PICTURES) == load(folder, batch_size=7)(PICTURES)


def test_no_pictures_no_captions(folder: Path) -> None:
    assert load(folder)([]) == []


def test_the_model_goes_on_from_the_prompt_and_the_caption_is_what_follows(folder: Path) -> None:
    captioner = load(folder, prompt=" a picture of ", min_new_tokens=10)
    model, tokenizer = captioner._model, captioner._tokenizer
    start = [len(BLIP_WORDS), *(BLIP_WORDS.index(word) for word in ("a", "picture", "of"))]
    seen: list[torch.Tensor] = []
    generate = model.text_decoder.generate

    def spy(input_ids: torch.Tensor, **options: Any) -> torch.Tensor:
        seen.append(input_ids)
        tokens: torch.Tensor = generate(input_ids=input_ids, **options)
        seen.append(tokens)
        return tokens

    model.text_decoder.generate = spy
    captions = captioner(PICTURES[:2])
    begun, ended = seen
    assert begun.tolist() == [start, start]
    assert ended.shape == (2, 4 + 10)
    assert captions == [clean(text) for text in tokenizer.batch_decode(ended[:, 4:], skip_special_tokens=True)]
    assert captions != load(folder, min_new_tokens=10)(PICTURES[:2]), "the prompt must matter"


def test_length_and_beams(folder: Path) -> None:
    short, long = load(folder, max_new_tokens=3)(PICTURES), load(folder, max_new_tokens=20, min_new_tokens=20)(PICTURES)
    assert max(len(caption.split()) for caption in short) <= 3 < max(len(caption.split()) for caption in long)
    greedy = load(folder, num_beams=1)
    tokens = generated(folder, PICTURES[0], max_new_tokens=10, num_beams=1)
    assert greedy(PICTURES[:1]) == [clean(greedy._tokenizer.decode(tokens, skip_special_tokens=True))]


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision(folder: Path, precision: str, dtype: torch.dtype) -> None:
    captioner = load(folder, precision=precision)
    assert {parameter.dtype for parameter in captioner._model.parameters()} == {dtype}
    assert len(captioner(PICTURES)) == len(PICTURES)


def test_memory_that_is_too_small_for_the_batch(folder: Path) -> None:
    expected, captioner = load(folder)(PICTURES), load(folder)
    generate, sizes = captioner._model.generate, []

    def limited(pixel_values: torch.Tensor, **options: Any) -> Any:
        sizes.append(len(pixel_values))
        if len(pixel_values) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return generate(pixel_values=pixel_values, **options)

    captioner._model.generate = limited
    assert captioner(PICTURES) == expected
    assert sizes == [7, 3, 1, 1, 1, 1, 1, 1, 1]


def test_weights_and_settings_as_older_versions_of_transformers_saved_them(folder: Path, own_folder: Path) -> None:
    model = BlipForConditionalGeneration.from_pretrained(own_folder)
    torch.save(model.state_dict(), own_folder / "pytorch_model.bin")
    settings = json.loads((own_folder / "processor_config.json").read_text())["image_processor"]
    # the hub's base model says 384 here, which need not be what the weights were made for
    (own_folder / "preprocessor_config.json").write_text(json.dumps({**settings, "size": 384}))
    for name in ("model.safetensors", "processor_config.json", "vocab.txt"):
        (own_folder / name).unlink()
    assert load(own_folder)(PICTURES) == load(folder)(PICTURES)


def test_settings_of_pictures_are_heeded_and_not_needed(folder: Path, own_folder: Path) -> None:
    path = own_folder / "processor_config.json"
    settings = json.loads(path.read_text())
    settings["image_processor"]["image_mean"] = [5.0, -5.0, 0.0]
    path.write_text(json.dumps(settings))
    assert load(own_folder)(PICTURES) != load(folder)(PICTURES)
    path.unlink()
    assert load(own_folder)(PICTURES) == load(folder)(PICTURES)


def test_loading_and_captioning_say_nothing(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load(folder)(PICTURES)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  a dog\n on  grass ", "a dog on grass"),
        ("arafed woman in a dress", "woman in a dress"),
        ("there is a araffed dog", "there is a dog"),
        ("a carafed table", "a carafed table"),
        ("arafed", ""),
    ],
)
def test_cleaning(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "int8"}, "'int8'; give one of fp32, bf16, fp16"),
        ({"num_beams": 0}, "number of beams is 0"),
        ({"max_new_tokens": 0}, "0 to 0 tokens; give a highest number of 1 or more"),
        ({"max_new_tokens": 5, "min_new_tokens": 6}, "6 to 5 tokens"),
        ({"batch_size": 0}, "batch size is 0"),
        ({"max_new_tokens": 60, "prompt": "a picture of"}, "up to 65 tokens, and this model has room for 64"),
        ({"device": "cuda:99"}, "Device 'cuda:99' cannot be used"),
    ],
)
def test_arguments_that_are_not_allowed(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(folder, **changes)


def test_the_file_of_the_original_blip(tmp_path: Path) -> None:
    file = tmp_path / "model_base_caption_capfilt_large.pth"
    file.write_bytes(b"")
    with pytest.raises(ModelError, match=r"large\.pth is a file; .* or Salesforce/blip-image-captioning"):
        load(file)


def _config(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def _other_weights(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    removed = sorted(key for key in weights if "crossattention" in key)[0]
    save_file({key: value for key, value in weights.items() if key != removed}, folder / "model.safetensors")


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing or broken; give a folder"),
        (lambda folder: (folder / "config.json").write_text("[]"), "holds no BLIP model"),
        (_config(model_type="clip", architectures=["CLIPModel"]), "holds a CLIPModel; captions need a Blip"),
        (_config(architectures=["BlipForQuestionAnswering"]), "holds a BlipForQuestionAnswering; captions need"),
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded; copy it again"),
        (_cut, "cannot be loaded; copy it again"),
        (_other_weights, "lacks 1 weights, for example text_decoder.*crossattention"),
        (
            lambda folder: [(folder / name).unlink() for name in ("tokenizer.json", "vocab.txt")],
            "has no tokenizer.json or vocab.txt",
        ),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer .* is broken"),
        (lambda folder: (folder / "processor_config.json").write_text("{"), "picture settings .* are broken"),
    ],
    ids=["no config", "config", "kind", "answers", "no weights", "cut", "lacking", "no words", "words", "pictures"],
)
def test_folders_that_are_no_captioner(own_folder: Path, change: Callable[[Path], object], message: str) -> None:
    change(own_folder)
    with pytest.raises(ModelError, match=message) as caught:
        load(own_folder)
    assert str(own_folder) in str(caught.value)
    assert "\n" not in str(caught.value)
