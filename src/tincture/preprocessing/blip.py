"""Captions by BLIP (https://arxiv.org/abs/2201.12086), in transformers' layout of folders."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers.models.bert.tokenization_bert import BertTokenizer
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.blip.modeling_blip import BlipForConditionalGeneration

from tincture.errors import ModelError, UsageError, foreign
from tincture.models.devices import PRECISIONS, resolve_device
from tincture.models.loading.silence import silenced_libraries
from tincture.preprocessing.batching import Batches
from tincture.preprocessing.blip_files import PROCESSOR_FILES, find_blip

# BLIP, the large one above all, puts this word without meaning before many a noun ("arafed woman in a dress").
_ARTEFACT = re.compile(r"\baraff?ed\b")


class BlipCaptioner:
    """A ``Captioner``; see ``captioning.load_captioner`` for the arguments."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        image_processor: Any,
        *,
        prompt: str,
        max_new_tokens: int,
        min_new_tokens: int,
        num_beams: int,
        batch_size: int,
    ) -> None:
        """Args: ``model``, a BlipForConditionalGeneration on its device, in its precision."""
        self._model = model
        self._tokenizer = tokenizer
        self._image_processor = image_processor
        self._prompt_ids = _prompt_ids(tokenizer, prompt)
        self._generation = {
            "max_new_tokens": max_new_tokens,
            "min_new_tokens": min_new_tokens,
            "num_beams": num_beams,
            "do_sample": False,
        }
        self._batches = Batches(batch_size)
        _check_length(model.config.text_config.max_position_embeddings, len(self._prompt_ids), max_new_tokens)

    def __call__(self, pictures: Sequence[Image.Image]) -> list[str]:
        return self._batches.map(self._describe, pictures)

    def _describe(self, pictures: Sequence[Image.Image]) -> list[str]:
        parameter = next(self._model.parameters())
        pixels = self._image_processor(list(pictures), return_tensors="pt")["pixel_values"]
        # The model exchanges the first token for its own sign of a beginning, and drops the last one, a sign of an end.
        prompts = torch.tensor([self._prompt_ids] * len(pictures), device=parameter.device)
        with torch.inference_mode(), silenced_libraries():
            tokens = self._model.generate(
                pixel_values=pixels.to(parameter.device, parameter.dtype),
                input_ids=prompts,
                attention_mask=torch.ones_like(prompts),
                **self._generation,
            )
        written = tokens[:, len(self._prompt_ids) - 1 :].cpu()
        texts = self._tokenizer.batch_decode(written, skip_special_tokens=True, clean_up_tokenization_spaces=True)
        return [clean(text) for text in texts]


def clean(text: str) -> str:
    """``text`` on one line, with single blanks, and without BLIP's made-up word "arafed"."""
    return " ".join(_ARTEFACT.sub("", text).split())


def load_blip(
    model: str,
    *,
    device: str,
    precision: str,
    prompt: str,
    max_new_tokens: int,
    min_new_tokens: int,
    num_beams: int,
    batch_size: int,
) -> BlipCaptioner:
    """See ``captioning.load_captioner``."""
    _check_arguments(precision, max_new_tokens, min_new_tokens, num_beams)
    place = resolve_device(device)
    folder = find_blip(model)
    blip = _load_model(folder, PRECISIONS[precision]).to(place).eval()
    return BlipCaptioner(
        blip,
        _load_tokenizer(folder),
        _load_image_processor(folder, blip.config.vision_config.image_size),
        prompt=prompt,
        max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens,
        num_beams=num_beams,
        batch_size=batch_size,
    )


def _check_arguments(precision: str, max_new_tokens: int, min_new_tokens: int, num_beams: int) -> None:
    if precision not in PRECISIONS:
        raise UsageError(f"The precision of captioning is {precision!r}; give one of {', '.join(PRECISIONS)}.")
    if num_beams < 1:
        raise UsageError(f"The number of beams is {num_beams}; give 1 or more.")
    if max_new_tokens < 1 or not 0 <= min_new_tokens <= max_new_tokens:
        raise UsageError(
            f"A caption shall have {min_new_tokens} to {max_new_tokens} tokens; give a highest number of 1 or more, "
            "and a lowest from 0 to it."
        )


def _check_length(positions: int, prompt_length: int, max_new_tokens: int) -> None:
    if prompt_length + max_new_tokens > positions:
        raise UsageError(
            f"Prompt and caption shall have up to {prompt_length + max_new_tokens} tokens, and this model has room for "
            f"{positions}; give a shorter prompt or fewer new tokens."
        )


def _load_model(folder: Path, dtype: torch.dtype) -> Any:
    try:
        with silenced_libraries():
            model, report = BlipForConditionalGeneration.from_pretrained(
                folder, dtype=dtype, local_files_only=True, output_loading_info=True
            )
    except Exception as error:  # transformers raises errors of many families here, and all mean broken files
        reason = foreign((str(error).strip() or type(error).__name__).splitlines()[0])
        raise ModelError(f"The BLIP model in {folder} cannot be loaded; copy it again. The cause: {reason}.") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"The BLIP model in {folder} lacks {len(missing)} weights, for example {missing[0]}; copy it again."
        )
    return model


def _load_tokenizer(folder: Path) -> Any:
    try:
        with silenced_libraries():
            return BertTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise ModelError(f"The tokenizer of the BLIP model in {folder} is broken; copy it again.") from error


def _load_image_processor(folder: Path, size: int) -> Any:
    """Pictures are squeezed into a square of the model's ``size``, whatever the processor's own file says of it."""
    square = {"height": size, "width": size}
    if not any((folder / name).is_file() for name in PROCESSOR_FILES):
        return BlipImageProcessorPil(size=square)
    try:
        return BlipImageProcessorPil.from_pretrained(folder, local_files_only=True, size=square)
    except Exception as error:
        raise ModelError(f"The picture settings of the BLIP model in {folder} are broken; copy it again.") from error


def _prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    ids: list[int] = tokenizer(prompt.strip())["input_ids"]
    return ids
