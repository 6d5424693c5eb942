"""Whether prompts name what is trained: an embedding learns nothing from prompts that its name does not stand in."""

from __future__ import annotations

from collections.abc import Sequence

from tincture.adapters.adapter import Adapter
from tincture.data import captions
from tincture.data.dataset import PictureDataset
from tincture.errors import UsageError
from tincture.kinds.registry import find_kind
from tincture.models.diffusion_model import DiffusionModel
from tincture.run.losses import negative_prompts
from tincture.settings.train import TrainSettings


def require_named(
    settings: TrainSettings, model: DiffusionModel, adapter: Adapter, lines: Sequence[str], dataset: PictureDataset
) -> None:
    """Makes sure that every word among adapters that are trained together stands in some prompt, and is its own.

    Raises:
        UsageError: naming all that no line of a template and no caption names, or that prompts cannot tell apart.
    """
    words, faults, apart = _words(adapter), [], negative_prompts(settings, adapter.word)
    is_lone = len(adapter.members()) == 1  # it makes sure itself that lines name it
    if not words or (is_lone and not apart):
        return
    texts = [line.replace(captions.NAME, adapter.word) for line in lines]
    if any(captions.FILEWORDS in line for line in lines):
        texts += [sample.caption.replace(captions.NAME, adapter.word) for sample in dataset]
    for word in sorted(_named_in(apart, model, words) & _named_in(texts, model, words)):
        faults.append(
            f"{word!r} stands in the negative prompt {settings.negative_prompt!r} and in a line of the template "
            f"{settings.template!r} or a caption too, so that it would be drawn both ways; name it in one of them."
        )
    words = [] if is_lone else words
    alike = dict(zip(model.text.vocabulary.spellings(words), words, strict=True))
    if len(alike) < len(words):
        faults.append(
            f"The names {', '.join(map(repr, words))} are not all read differently in a prompt; rename one of those "
            "that are alike."
        )
    missing = [word for word in words if word not in _named_in([*texts, *apart], model, words)]
    if missing:
        faults.append(
            f"No prompt names {', '.join(map(repr, missing))}, so nothing of it would be trained: neither a line of "
            f"the template {settings.template!r} nor a caption that is used has the name. Write it into captions or "
            f"lines, or give it a template of its own, in which [name] is its name: --with 'embedding:{missing[0]}; "
            "template=subject'."
        )
    if faults:
        raise UsageError(" ".join(faults))


def naming_all(
    settings: TrainSettings, prompts: Sequence[str], model: DiffusionModel, adapter: Adapter
) -> tuple[str, ...]:
    """Prompts that name every word among adapters that are trained together, behind what they say already.

    Those that the negative prompt names stay there.
    """
    apart = _named_in(negative_prompts(settings, adapter.word), model, _words(adapter))
    words = [word for word in _words(adapter) if word not in apart]
    if len(adapter.members()) == 1:
        return tuple(prompts)
    whole = [
        ", ".join([prompt, *(word for word in words if word not in _named_in([prompt], model, words))])
        for prompt in prompts
    ]
    return tuple(dict.fromkeys(whole))


def _words(adapter: Adapter) -> list[str]:
    return [member.name for member in adapter.members() if find_kind(member.kind).has_word]


def _named_in(texts: Sequence[str], model: DiffusionModel, words: Sequence[str]) -> set[str]:
    vocabulary = model.text.vocabulary
    find = vocabulary.finder(zip(vocabulary.spellings(words), words, strict=True))
    return set(find(texts))
