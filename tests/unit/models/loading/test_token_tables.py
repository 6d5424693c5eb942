"""What a new embedding begins with is read alone, and is what the whole model has."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from tools.make_checkpoint import write_checkpoint

from tests.support import TOKENIZER, save_folder, tiny_model
from tincture.errors import ModelError
from tincture.models.loading.clip_tokenizer import clip_tokenizer, load_tokenizer
from tincture.models.loading.load import load_model
from tincture.models.loading.plain_tokenizer import PlainTokenizer, folder_tokenizer, own_tokenizer
from tincture.models.loading.sources import PICTO
from tincture.models.loading.token_tables import load_words
from tincture.models.tokens import token_ids

TEXTS = ("*", "", "a small red moon", "it's 2 CATS!!", "<rex>", "a <|endoftext|> b", "é © &copy; \uff21b", "wow!")


def nothing_else() -> PlainTokenizer:
    raise AssertionError("the whole tokenizer was loaded")


def file_of(kind: str, suffix: str, dtype: torch.dtype) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / f"{kind}{suffix}"
        write_checkpoint(kind, path, dtype=dtype)
        return path

    return write


def half_folder(folder: Path) -> Path:
    """Weights in half precision, as ``fp16`` variants alone."""
    shutil.copytree(PICTO, folder / "half")
    for weights in (folder / "half").rglob("*.safetensors"):
        weights.rename(weights.with_name(weights.name.replace(".safetensors", ".fp16.safetensors")))
    return folder / "half"


def folder_with_a_token(folder: Path) -> Path:
    """As transformers writes it once a word was added."""
    model = tiny_model()
    model.tokenizer.add_tokens(["<rex>"])
    model.text_encoders[0].module.resize_token_embeddings(len(model.tokenizer), mean_resizing=False)
    return save_folder(model, folder / "added")


def folder_of_old(folder: Path) -> Path:
    """As such folders were written before: files of vocabulary and merges, and lists of special tokens."""
    shutil.copytree(PICTO, folder / "old")
    mark = {"content": "<|startoftext|>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    special = {"bos_token": mark, "pad_token": "!", "unk_token": {**mark, "content": "<|endoftext|>"}}
    (folder / "old/tokenizer/special_tokens_map.json").write_text(json.dumps(special))
    (folder / "old/tokenizer/added_tokens.json").write_text(json.dumps({"<|endoftext|>": 654}))
    return folder / "old"


MODELS: dict[str, Callable[[Path], Path]] = {
    "picto": lambda _: PICTO,
    "half": half_folder,
    "added": folder_with_a_token,
    "old": folder_of_old,
    "written": lambda folder: save_folder(tiny_model(), folder / "tiny"),
    **{f"{kind}-file": file_of(kind, ".safetensors", torch.float16) for kind in ("sd1", "sd2", "sdxl")},
    "sd1-ckpt": file_of("sd1", ".ckpt", torch.float32),
    "sd2-v": file_of("sd2-v", ".safetensors", torch.bfloat16),
}


@pytest.mark.parametrize("layout", MODELS)
def test_every_layout_gives_what_the_whole_model_has(layout: str, tmp_path: Path) -> None:
    path = str(MODELS[layout](tmp_path))
    model, words = load_model(path, text_only=True), load_words(path)

    assert (words.name, words.hash, words.text.max_vectors) == (model.name, model.hash, model.text.max_vectors)
    for text in TEXTS:
        expected, found = model.text.token_embeddings(text), words.text.token_embeddings(text)
        assert list(found) == list(expected)
        assert all(found[name].dtype == torch.float32 and found[name].equal(expected[name]) for name in expected), text


@given(st.text())
def test_texts_are_read_alike(text: str) -> None:
    for plain, whole in PAIRS:
        assert token_ids(plain, [text]) == token_ids(whole, [text])


def pairs(open_clip: bool) -> list[tuple[PlainTokenizer, Any]]:
    """Picto's tokenizer and CLIP's own, each read alone and by transformers."""
    wholes = (load_tokenizer(TOKENIZER, open_clip=open_clip), clip_tokenizer(open_clip=open_clip))
    pictos = folder_tokenizer(TOKENIZER, 77, open_clip=open_clip, whole=lambda: wholes[0])
    return list(zip((pictos, own_tokenizer(77, open_clip=open_clip, whole=lambda: wholes[1])), wholes, strict=True))


PAIRS = [*pairs(False), *pairs(True)]


def test_plain_words_do_without_the_whole_tokenizer(tmp_path: Path) -> None:
    tokenizer = folder_tokenizer(folder_of_old(tmp_path) / "tokenizer", 77, open_clip=False, whole=nothing_else)
    assert token_ids(tokenizer, ["a small red moon", "*"]) == token_ids(PAIRS[0][1], ["a small red moon", "*"])
    for text in ("wow!", "a <|ENDOFTEXT|>"):
        with pytest.raises(AssertionError, match="whole tokenizer"):
            token_ids(tokenizer, [text])


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no weights": (lambda f: (f / "text_encoder/model.safetensors").unlink(), "has no weights"),
    "no tokens": (lambda f: (f / "tokenizer/vocab.json").unlink(), "lacks vocab.json or merges.txt"),
    "broken tokens": (lambda f: (f / "tokenizer/vocab.json").write_text("{"), "tokenizer in .* cannot be loaded"),
    "other width": (lambda f: edit(f / "text_encoder/config.json", hidden_size=64), "fit its configuration"),
    "no unet": (lambda f: shutil.rmtree(f / "unet"), "has no unet"),
    "a model of another": (lambda f: other_table(f), "knows 655 tokens and the text_encoder only 100"),
}


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def other_table(folder: Path) -> None:
    path = folder / "text_encoder/model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("token_embedding.weight"))
    save_file({**weights, name: weights[name][:100].contiguous()}, path)
    edit(folder / "text_encoder/config.json", vocab_size=100)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_said_as_the_model_says_it(fault: str, tmp_path: Path) -> None:
    folder, (spoil, sentence) = tmp_path / "model", FAULTS[fault]
    shutil.copytree(PICTO, folder)
    spoil(folder)
    with pytest.raises(ModelError, match=sentence):
        load_words(str(folder)).text.token_embeddings("moon")
    with pytest.raises(ModelError, match=sentence):
        load_model(str(folder), text_only=True)
