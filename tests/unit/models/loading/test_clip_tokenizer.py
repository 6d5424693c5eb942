from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tincture.models.loading.clip_tokenizer import MERGES, clip_tokenizer, load_tokenizer


def test_the_merges_are_those_that_clip_was_published_with() -> None:
    digest = hashlib.sha256(MERGES.read_bytes()).hexdigest()
    assert digest == "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a"
    licence = (MERGES.parent / "LICENSE").read_text()
    assert "Permission is hereby granted, free of charge" in licence and "OpenAI" in licence


def test_known_prompts_have_clips_ids() -> None:
    tokenizer = clip_tokenizer()

    assert tokenizer("a photo of a cat", add_special_tokens=False)["input_ids"] == [320, 1125, 539, 320, 2368]
    assert tokenizer.tokenize("Wow!! it's 2 CATS") == ["wow</w>", "!!</w>", "it</w>", "'s</w>", "2</w>", "cats</w>"]
    assert (len(tokenizer), tokenizer.model_max_length) == (49408, 77)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (49406, 49407, 49407)


def test_padding_with_an_exclamation_mark_leaves_those_of_the_prompt_alone() -> None:
    plain, padded = clip_tokenizer(), clip_tokenizer("!")

    texts = ["wow! a cat!! (and) !dog", "!", "!!!!"]

    assert padded.pad_token_id == 0
    assert padded(texts)["input_ids"] == plain(texts)["input_ids"]
    padded_ids = padded("a!", padding="max_length")["input_ids"]
    assert padded_ids == [49406, 320, 256, 49407, *[0] * 73]


@pytest.mark.parametrize("pad_token", [None, "!"])
def test_a_folder_gives_the_same_ids(pad_token: str | None, tmp_path: Path) -> None:
    tokenizer = clip_tokenizer(pad_token)
    tokenizer.save_pretrained(tmp_path)

    loaded = load_tokenizer(tmp_path)

    texts = ["wow! a cat!! (and) !dog", "a photo of <|endoftext|>"]
    assert loaded(texts)["input_ids"] == tokenizer(texts)["input_ids"]
    assert (loaded.pad_token_id, loaded.model_max_length) == (tokenizer.pad_token_id, 77)
