from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import ftfy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import TOKENIZER, padded_tokenizer, tiny_sdxl
from tincture.models.families import FAMILIES
from tincture.models.loading.clip_tokenizer import MERGES, clip_tokenizer, load_tokenizer
from tincture.models.loading.text_cleaning import clip_words
from tincture.models.tokens import token_ids

# Texts and their ids as transformers 4.46.3 with ftfy 6.3.1, and as OpenCLIP 2.20.0 reads them.
GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "tokens.json").read_text())
END_ID = 654  # of picto's tokenizer


def ids_of(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


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

    texts = ["wow! a cat!! (and) !dog", "a photo of <|endoftext|>", *(text for text, _, _ in GOLDEN)]
    assert loaded(texts)["input_ids"] == tokenizer(texts)["input_ids"]
    assert (loaded.pad_token_id, loaded.model_max_length) == (tokenizer.pad_token_id, 77)


# --- odd letters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("open_clip", [False, True])
def test_every_text_has_the_ids_that_the_webui_gives_it(open_clip: bool) -> None:
    tokenizer = clip_tokenizer(open_clip=open_clip)
    for text, *ids in GOLDEN:
        assert ids_of(tokenizer, text) == token_ids(tokenizer, [text])[0] == ids[open_clip], text


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_plain_text_needs_no_mending(text: str) -> None:
    assert clip_words(text).split(" ") == clip_words(ftfy.fix_text(text)).split(" ")


@pytest.mark.parametrize("family", ["sd2", "sdxl"])
def test_files_of_a_family_are_read_as_its_text_encoders_were_trained(family: str) -> None:
    assert [spec.open_clip for spec in FAMILIES[family].text_encoders] == {"sd2": [True], "sdxl": [False, True]}[family]


def test_each_text_encoder_of_sdxl_reads_a_prompt_in_its_own_way() -> None:
    model, seen = tiny_sdxl(), []
    for encoder in model.text_encoders:
        encoder.encode = lambda ids, clip_skip, inner=encoder.encode: (seen.append(ids), inner(ids, clip_skip))[1]

    model.encode_prompts(["red &copy moon"])

    first, second = (ids[0].tolist()[1 : ids[0].tolist().index(END_ID)] for ids in seen)
    assert first == ids_of(load_tokenizer(TOKENIZER), "red & copy moon")
    assert second == ids_of(padded_tokenizer(), "red © moon") != first


def test_text_encoders_that_need_different_numbers_of_chunks_are_filled_up() -> None:
    """74 tokens where the entity is read, 76 where it is not."""
    model = tiny_sdxl()
    count = len(ids_of(load_tokenizer(TOKENIZER), "©"))
    prompt = "&copy " + "red " * (75 - count)

    assert model.text.lengths([prompt]) == [154]
    assert model.encode_prompts([prompt]).hidden_states.shape == (1, 154, 80)
