from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli.conftest import FakeRecipe
from tincture.adapters.hypernetwork import Hypernetwork
from tincture.cli import main


def test_embedding_flags_reach_the_recipe(recipe: FakeRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["create", "embedding", "cat", "--vectors", "3", "--init-text", "small cat", "--model", "m", "--overwrite"]
    assert main(words) == 0
    ((name, arguments, keywords),) = recipe.calls
    keywords.pop("workspace")
    assert (name, arguments) == ("create", ("embedding", "cat"))
    assert keywords == {"model": "m", "num_vectors": 3, "init_text": "small cat", "overwrite": True}
    assert capsys.readouterr().out == "made embeddings/cat.pt\n"


def test_an_embedding_gets_several_vectors_unless_asked_otherwise(recipe: FakeRecipe) -> None:
    assert main(["create", "embedding", "cat"]) == 0
    ((_, _, keywords),) = recipe.calls
    assert (keywords["num_vectors"], keywords["init_text"]) == (4, "a thing")


def test_a_seed_that_is_too_large_is_told(recipe: FakeRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["create", "hypernetwork", "ink", "--seed", str(2**64 - 1)]) == 0
    assert main(["create", "hypernetwork", "ink", "--seed", str(2**64)]) == 2
    told = capsys.readouterr().err
    assert "--seed" in told and str(2**64 - 1) in told
    assert len(recipe.calls) == 1


def test_hypernetwork_flags_reach_the_recipe(recipe: FakeRecipe, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["create", "hypernetwork", "ink", "--sizes", "768, 320", "--layer-structure", "1,1.5,1"]
    words += ["--activation", "mish", "--weight-init", "XavierNormal", "--layer-norm", "--activate-output"]
    words += ["--dropout-structure", "0,0.3,0", "--seed", "4", "--json"]
    assert main(words) == 0
    ((name, arguments, keywords),) = recipe.calls
    keywords.pop("workspace")
    assert (name, arguments) == ("create", ("hypernetwork", "ink"))
    assert keywords == {
        "model": "",
        "sizes": [768, 320],
        "layer_structure": [1, 1.5, 1],
        "activation_func": "mish",
        "weight_init": "XavierNormal",
        "add_layer_norm": True,
        "activate_output": True,
        "dropout_structure": [0, 0.3, 0],
        "seed": 4,
        "overwrite": False,
    }
    # files hold whole factors as ints
    assert [type(factor) for factor in keywords["layer_structure"]] == [int, float, int]
    assert json.loads(capsys.readouterr().out) == {"kind": "hypernetwork", "path": "models/hypernetworks/ink.pt"}


def test_sizes_and_dropout_not_given_are_left_to_the_recipe(recipe: FakeRecipe) -> None:
    assert main(["create", "hypernetwork", "ink"]) == 0
    ((_, _, keywords),) = recipe.calls
    assert (keywords["sizes"], keywords["dropout_structure"]) == (None, None)


def test_sizes_may_be_those_of_a_family(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    create = ["create", "hypernetwork", "ink", "--sizes", "sdxl", "--layer-structure", "1,0.01,1"]
    assert main([*create, "--model", "none such", "--root", str(tmp_path)]) == 0
    made = Hypernetwork.load(tmp_path / "models" / "hypernetworks" / "ink.pt")
    assert (sorted(made.sizes), made.model_name) == ([640, 1280, 2048], "")
    capsys.readouterr()
    assert main(["create", "hypernetwork", "other", "--sizes", "sdx", "--root", str(tmp_path)]) == 2
    assert "no family 'sdx' to take the sizes of; known are sd1, sd2, sdxl" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["embedding", "a/b"], "'a/b'"),
        (["embedding", "x" * 101], "101 characters"),
        (["embedding", "cat", "--vectors", "0"], "--vectors"),
        (["hypernetwork", "a:b"], "'a:b'"),
        (["hypernetwork", "ink", "--sizes", "768,wide"], "--sizes has 'wide'"),
        (["hypernetwork", "ink", "--sizes", "768.5"], "768.5"),
        (["hypernetwork", "ink", "--layer-structure", "1,,1"], "--layer-structure has ''"),
        (["hypernetwork", "ink", "--dropout-structure", "0,nan,0"], "--dropout-structure has 'nan'"),
    ],
)
def test_wrong_values_are_refused_before_anything_is_loaded(
    words: list[str], told: str, recipe: FakeRecipe, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["create", *words]) == 2
    assert told in capsys.readouterr().err
    assert not recipe.calls
