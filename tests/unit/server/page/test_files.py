from __future__ import annotations

import pytest

from tincture.errors import UsageError
from tincture.server.page.files import view
from tincture.server.page.files.convert_form import _target
from tincture.server.page.files.merge_form import asked


def test_a_converted_file_lies_in_its_folder() -> None:
    assert _target("embedding", "png", "moon") == "converted/moon.png"
    assert _target("embedding", "kohya", "<moon> 2") == "converted/<moon> 2-kohya.safetensors"


@pytest.mark.parametrize("name", ["../models/Stable-diffusion/a", "a/b", "a\\b", "/tmp/a", "..", "C:\\a", "a\0b", ""])
def test_the_name_of_a_converted_file_leads_nowhere_else(name: str) -> None:
    with pytest.raises(UsageError):
        _target("embedding", "safetensors", name)


def test_a_merge_is_asked_for_by_what_stands_in_the_inputs() -> None:
    values = {"sources": " ink:0.6 \n\nwash:0.4", "out": "mixed", "method": None, "layer_structure": "1, 0.5, 1"}
    assert asked({**values, "sizes": "", "overwrite": False}) == {
        "sources": ["ink:0.6", "wash:0.4"],
        "out": "mixed",
        "layer_structure": [1, 0.5, 1],
        "overwrite": False,
    }
    with pytest.raises(UsageError, match="sizes has 'x'"):
        asked({"sources": "ink", "sizes": "768, x"})


def test_what_a_merge_wrote_says_how_far_it_is_off() -> None:
    written = {"path": "/w/<i>.pt", "kind": "hypernetwork", "method": "sum", "differences": {320: 1e-8, 768: 0.125}}
    shown = view.merged(
        {**written, "sources": [{"name": "<b>", "weight": 0.5, "step": 1000}], "lost": ["A <part>."]}, "u"
    )
    assert "nothing, up to rounding" in shown and "12.5%" in shown and "weight 0.5, step 1,000" in shown
    assert "&lt;b&gt;" in shown and "A &lt;part&gt;." in shown and "<i>" not in shown
