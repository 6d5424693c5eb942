from __future__ import annotations

from pathlib import Path

import pytest

from tincture.errors import UsageError
from tincture.server.requests.conversion import checked_conversion
from tincture.server.requests.places import Places
from tincture.workspace import Workspace

FILES = {"path": "ink.pt", "out": "ink.safetensors"}


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(Workspace(tmp_path), tmp_path / "state")


def test_what_is_asked_of_a_lora_has_fields_of_its_own(places: Places) -> None:
    made = checked_conversion({**FILES, "to": "lora", "model": "picto", "rank": 8, "strength": 0.5}, places)
    root = places.workspace.root.resolve()
    assert (made["path"], made["out"], made["to"]) == (root / "ink.pt", root / "ink.safetensors", "lora")
    assert made["lora"] == {"model": "picto", "rank": 8, "multiplier": 0.5, "output_bias": False}
    assert checked_conversion({**FILES, "captions": "texts.txt"}, places)["lora"]["captions"] == root / "texts.txt"
    assert "lora" not in checked_conversion(FILES, places)


def test_the_same_is_taken_as_a_mapping(places: Places) -> None:
    lora = {"model": "picto", "rank": 8, "multiplier": 0.5, "captions": ["a moon"], "output_bias": None}
    made = checked_conversion({**FILES, "to": "lora", "lora": lora}, places)
    alone = checked_conversion({**FILES, "to": "lora", "model": "picto", "rank": 8, "strength": 0.5}, places)
    assert made["lora"].pop("captions") == ["a moon"]
    assert made == alone


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workspace": "/"}, r"A conversion has no option 'workspace'; it has path, out, .*output_bias\."),
        (
            {"to": "gif"},
            "to is 'gif', but must be one of pt, bin, safetensors, kohya, sdxl, onetrainer, png, webp, lora",
        ),
        ({"rank": 4097}, "rank is 4097; allowed is at most 4,096"),
        ({"rank": 0}, "rank is 0, but must be a whole number, at least 1"),
        ({"picture": 3}, "picture is 3, but must be a text"),
        ({"overwrite": "yes"}, "overwrite is 'yes', but must be true or false"),
        ({"lora": {"path": "x"}}, "A LoRA has no option 'path'; it has model, rank, captions, output_bias, multiplier"),
        ({"lora": "all"}, "lora is 'all', but must have model, rank"),
        ({"lora": {"captions": ["a" * 20_001]}}, "captions has 20,001 characters"),
    ],
)
def test_each_fault_is_a_sentence(places: Places, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        checked_conversion({**FILES, **options}, places)
