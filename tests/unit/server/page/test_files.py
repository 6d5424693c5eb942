from __future__ import annotations

import pytest

from tincture.errors import UsageError
from tincture.server.page.files.tab import _target


def test_a_converted_file_lies_in_its_folder() -> None:
    assert _target("embedding", "png", "moon") == "converted/moon.png"
    assert _target("embedding", "kohya", "<moon> 2") == "converted/<moon> 2-kohya.safetensors"


@pytest.mark.parametrize("name", ["../models/Stable-diffusion/a", "a/b", "a\\b", "/tmp/a", "..", "C:\\a", "a\0b", ""])
def test_the_name_of_a_converted_file_leads_nowhere_else(name: str) -> None:
    with pytest.raises(UsageError):
        _target("embedding", "safetensors", name)
