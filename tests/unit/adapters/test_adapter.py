from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.runs import equal
from tests.support import weights
from tincture.adapters import adapter as protocol
from tincture.adapters.adapter import Adapter, adapter_class
from tincture.errors import UsageError
from tincture.kinds.registry import AdapterKind, kinds
from tincture.models.stable_diffusion import StableDiffusion

KINDS = [pytest.param(kind, id=kind.name) for kind in kinds()]


def made(kind: AdapterKind, model: StableDiffusion, name: str = "cat") -> Adapter:
    return adapter_class(kind).create(name, lambda: model)


@pytest.mark.parametrize("module", ["adapters.adapter", "kinds.registry", "kinds.embedding", "kinds.hypernetwork"])
def test_the_protocol_and_the_kinds_are_imported_without_torch(module: str) -> None:
    code = f"import sys, tincture.{module}, tincture.settings.train; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_class_that_follows_the_protocol(kind: AdapterKind, shared_model: StableDiffusion) -> None:
    found = adapter_class(kind)
    assert Adapter in found.__mro__ and found.kind == kind.name
    (asked,) = ast.parse(inspect.getsource(protocol.Adapter)).body
    assert isinstance(asked, ast.ClassDef)
    names = {node.name for node in asked.body if isinstance(node, ast.FunctionDef)}
    names |= {ast.unparse(node.target) for node in asked.body if isinstance(node, ast.AnnAssign)}
    assert {"kind", "published", "attach", "save_optimizer"} <= names
    adapter = made(kind, shared_model)
    assert not {name for name in names if not hasattr(adapter, name)}
    assert adapter.published() is adapter


@pytest.mark.parametrize("kind", KINDS)
def test_its_options_are_those_of_its_create(kind: AdapterKind, shared_model: StableDiffusion) -> None:
    options = {option.name: option.default for option in kind.options}
    given = {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()}
    assert equal(
        made(kind, shared_model).state_dict(),
        adapter_class(kind).create("cat", lambda: shared_model, **given).state_dict(),
    )
    preset = adapter_class(kind).create("cat", lambda: shared_model, **kind.preset_options)
    assert preset.parameters()


@pytest.mark.parametrize("kind", KINDS)
def test_it_comes_back_from_its_file_and_from_its_state(
    kind: AdapterKind, shared_model: StableDiffusion, tmp_path: Path
) -> None:
    adapter = made(kind, shared_model)
    adapter.advance()
    for parameter in adapter.parameters():
        assert parameter.dtype is torch.float32 and parameter.requires_grad
        parameter.data += 0.5
    path = tmp_path / f"cat{adapter.suffix}"
    adapter.save(path, model_name="tiny", provenance={"author": "Ada"})
    loaded = adapter_class(kind).load(path)
    assert loaded.step == 1 and loaded.provenance["author"] == "Ada"
    assert equal(loaded.state_dict(), adapter.state_dict())
    fresh = made(kind, shared_model)
    before = fresh.parameters()
    fresh.load_state_dict(adapter.state_dict())
    assert equal(fresh.state_dict(), adapter.state_dict())
    assert all(one is other for one, other in zip(before, fresh.parameters(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_is_as_it_was_afterwards(kind: AdapterKind, model: StableDiffusion) -> None:
    before, adapter = weights(model), made(kind, model)
    hooks = [len(module._forward_pre_hooks) for module in model.unet.modules()]
    with pytest.raises(KeyError), adapter.attach(model):
        raise KeyError
    assert equal(weights(model), before)
    assert [len(module._forward_pre_hooks) for module in model.unet.modules()] == hooks


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_of_an_optimizer_lies_beside_its_file(
    kind: AdapterKind, shared_model: StableDiffusion, tmp_path: Path
) -> None:
    adapter = made(kind, shared_model)
    path = tmp_path / f"cat{adapter.suffix}"
    adapter.save(path)
    assert adapter.load_optimizer(path) is None
    adapter.save_optimizer(path, "AdamW", {"state": {}, "param_groups": []})
    assert adapter.load_optimizer(path) == ("AdamW", {"state": {}, "param_groups": []})


@pytest.mark.parametrize("kind", KINDS)
def test_only_kinds_with_a_card_are_drawn_on_one(
    kind: AdapterKind, shared_model: StableDiffusion, tmp_path: Path
) -> None:

    adapter, path = made(kind, shared_model), tmp_path / "card.png"
    if not kind.has_card:
        with pytest.raises(UsageError, match="has no place"):
            adapter.save_card(path, Image.new("RGB", (256, 256)))
        return
    adapter.save_card(path, Image.new("RGB", (256, 256)))
    assert equal(adapter_class(kind).load(path).state_dict(), adapter.state_dict())
