from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tincture.errors import FileFormatError, UsageError
from tincture.formats.embedding_content import EmbeddingFile, embedding_of, only_vectors, webui_content

XTI = [*(f"IN{n:02}" for n in (1, 2, 4, 5, 7, 8)), "MID", *(f"OUT{n:02}" for n in range(3, 12))]


def rows(number: int = 2, width: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(number, width, generator=torch.Generator().manual_seed(seed))


# --- layouts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "layout", "name"),
    [
        ({"string_to_param": {"*": rows()}, "name": "n"}, "webui", "n"),
        ({"string_to_param": {"other": rows()}}, "webui", "file"),
        ({"<ferry>": rows()}, "diffusers", "<ferry>"),
        ({"*": rows()}, "diffusers", "file"),
        ({"emb_params": rows()}, "kohya", "file"),
        ({"emp_params": rows()}, "onetrainer", "file"),
        ({"clip_l": rows()}, "sdxl", "file"),
    ],
)
def test_the_keys_tell_the_layout(content: Any, layout: str, name: str) -> None:
    file = embedding_of("folder/file.pt", content)
    assert (file.layout, file.name, file.lost) == (layout, name, ())
    assert torch.equal(file.vectors["clip_l"], rows())


@pytest.mark.parametrize(("width", "encoder"), [(768, "clip_l"), (1024, "clip_h"), (1280, "clip_g"), (112, "clip_l")])
def test_the_width_tells_the_text_encoder(width: int, encoder: str) -> None:
    for content in ({"string_to_param": {"*": rows(1, width)}}, {"emb_params": rows(1, width)}):
        assert list(embedding_of("file.pt", content).vectors) == [encoder]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_a_single_row_and_other_precisions_are_read(dtype: torch.dtype) -> None:
    found = embedding_of("file.bin", {"<a>": rows(1)[0].to(dtype)}).vectors["clip_l"]
    assert found.dtype == torch.float32
    assert torch.equal(found, rows(1).to(dtype).float())


def test_sdxls_pair() -> None:
    content = {"clip_g": rows(3, 1280), "clip_l": rows(3, 768)}
    file = embedding_of("file.safetensors", content)
    assert list(file.vectors) == ["clip_l", "clip_g"]
    assert all(torch.equal(file.vectors[key], content[key]) for key in content)


def test_hcps_joined_vectors_are_split() -> None:
    file = embedding_of("file.pt", {"string_to_param": {"*": rows(3, 2048)}, "name": "n"})
    assert file.layout == "hcp"
    assert torch.equal(torch.cat((file.vectors["clip_l"], file.vectors["clip_g"]), dim=1), rows(3, 2048))
    assert file.vectors["clip_l"].shape == (3, 768)


@pytest.mark.parametrize(
    ("content", "lost"),
    [
        ({"emp_params": rows(), "emp_params_out": rows()}, "emp_params_out: output vectors"),
        (
            {"clip_l": rows(2, 768), "clip_g": rows(2, 1280), "clip_l_out": rows(), "clip_g_out": rows()},
            "clip_g_out, clip_l_out: output vectors",
        ),
    ],
)
def test_onetrainers_output_vectors_are_left_out_and_told(content: dict[str, Tensor], lost: str) -> None:
    file = embedding_of("file.safetensors", content)
    assert file.layout == "onetrainer"
    assert len(file.lost) == 1 and file.lost[0].startswith(lost)
    assert not any("out" in encoder for encoder in file.vectors)


def test_xti_is_averaged_and_the_loss_is_told() -> None:
    same = embedding_of("file.pt", {key: rows(2, 768) for key in XTI})
    assert torch.allclose(same.vectors["clip_l"], rows(2, 768))
    assert "0.0% of their energy is lost" in same.lost[0]
    opposite = embedding_of("file.pt", {key: rows(2, 768) * (-1) ** n for n, key in enumerate(XTI)})
    assert opposite.vectors["clip_l"].abs().max() < 1e-5
    assert "100.0% of their energy is lost" in opposite.lost[0]
    assert opposite.layout == "kohya-xti"


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "NoneType"),
        ([rows()], "type list"),
        (rows(), "type Tensor"),
        ({}, "0 entries"),
        ({768: ({}, {}), 320: ({}, {})}, "it is a hypernetwork; give the file of an embedding"),
        ({768: 1, 320: 2}, r"2 entries \(768, 320\)"),
        ({f"lora_unet_{n}.lora_down.weight": rows() for n in "ab"}, "it is a LoRA; give the file of an embedding"),
        ({"a": rows(), "b": rows()}, r"2 entries \(a, b\)"),
        ({str(n): rows() for n in range(50)}, r"50 entries \(0, 1, 2, 3, …\)"),
        ({"x" * 10_000: rows(), "b": 1}, r"2 entries \(xxx"),
        ({"string_to_param": None}, "no vectors under string_to_param"),
        ({"string_to_param": {}}, "no vectors"),
        ({"string_to_param": [rows()]}, "no vectors"),
        ({"string_to_param": torch.nn.ParameterDict({})}, "no vectors"),
        ({"string_to_param": {"*": rows(), "+": rows()}}, r"2 terms \(\*, \+\), not exactly one"),
        ({"string_to_param": {"*": "x"}}, "a value of type str"),
        ({"<a>": {"b": rows()}}, "a value of type dict"),
        ({"<a>": torch.zeros(2, 3, 4)}, r"float32 \(2, 3, 4\)"),
        ({"<a>": torch.zeros(())}, r"float32 \(\)"),
        ({"<a>": torch.zeros(0, 8)}, r"float32 \(0, 8\)"),
        ({"<a>": torch.zeros(2, 8, dtype=torch.int64)}, "a tensor of int64"),
        ({"<a>": torch.zeros(2, 8, dtype=torch.complex64)}, "a tensor of complex64"),
        ({"<a>": torch.zeros(2, 8).to_sparse()}, r"float32 \(2, 8\)"),
        ({"<a>": torch.zeros(2, 8, device="meta")}, r"float32 \(2, 8\)"),
        ({"<a>": torch.zeros(1).expand(1_000_000, 1_000_000)}, "the file holds fewer numbers"),
        ({"<a>": torch.tensor([[1.0, float("nan")]])}, "NaN or infinite"),
        ({"<a>": torch.tensor([[1.0, float("-inf")]])}, "NaN or infinite"),
        ({"<a>": torch.tensor([[1e300]], dtype=torch.float64)}, "NaN or infinite"),
        ({"clip_l": rows(2, 1280), "clip_g": rows(2, 768)}, "clip_l has vectors of width 1280"),
        ({"clip_l": rows(2, 768), "clip_g": rows(3, 1280)}, "different numbers of vectors"),
        ({"clip_l": rows(2, 768), "clip_g": rows(2, 1280), "t5xxl": rows(2, 4096)}, "3 entries"),
        ({"emp_params_out": rows()}, "emp_params_out take the place"),
        ({key: rows(1 + (key == "MID"), 768) for key in XTI}, "different shapes"),
    ],
)
def test_what_is_no_embedding_is_refused_in_a_sentence(content: object, words: str) -> None:
    with pytest.raises(FileFormatError, match=words) as error:
        embedding_of("folder/file.pt", content)
    assert str(error.value).startswith("folder/file.pt")
    assert str(error.value).endswith(".")
    assert len(str(error.value)) < 250


@pytest.mark.parametrize("value", [None, "x", -1, 1.5, [3]])
def test_odd_descriptions_do_not_matter(value: object) -> None:
    content = {"string_to_param": {"*": rows()}, "name": 3, "step": None, "sd_checkpoint": value, "tincture": value}
    file = embedding_of("file.pt", content)
    assert (file.name, file.step) == ("file", 0)
    assert file.provenance == {}


# --- writing ----------------------------------------------------------------------------------------------------------


def test_the_webuis_dict() -> None:
    file = EmbeddingFile({"clip_l": rows().half()}, "n", 3, "m", "0123456789", {"seed": 1})
    content = webui_content(file)
    assert torch.equal(content.pop("string_to_param")["*"], rows().half().float())
    assert content == {
        "string_to_token": {"*": 265},
        "name": "n",
        "step": 3,
        "sd_checkpoint": "0123456789",
        "sd_checkpoint_name": "m",
        "tincture": '{"seed": 1}',
    }


def test_only_vectors_of_one_text_encoder() -> None:
    trained = torch.nn.Parameter(rows())
    copied = only_vectors(EmbeddingFile({"clip_l": trained}, "n"), "these files")
    assert torch.equal(copied, trained) and not copied.requires_grad
    assert copied.data_ptr() != trained.data_ptr()
    for vectors in ({}, {"clip_l": rows(), "clip_g": rows()}):
        with pytest.raises(UsageError, match="these files hold those of exactly one"):
            only_vectors(EmbeddingFile(vectors, "n"), "these files")
