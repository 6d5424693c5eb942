"""Files that are not what was asked for are named by their first bytes, whoever reads them."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save as save_safetensors

from tincture.errors import FileFormatError
from tincture.formats.contents import read_contents
from tincture.formats.embedding_file import read_embedding_file
from tincture.formats.file_kinds import describe_names
from tincture.formats.files import atomic_torch_save
from tincture.formats.hypernetwork_file import read_hypernetwork_file
from tincture.formats.tensor_file import open_tensors

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3819\n"
READERS: tuple[Callable[[Path], object], ...] = (
    read_embedding_file,
    read_hypernetwork_file,
    read_contents,
    open_tensors,
)


def picture(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, kind)
    return buffer.getvalue()


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("_", "."), content)
    return buffer.getvalue()


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("amy.pt"))
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(2))
    return buffer.getvalue()


OTHERS: dict[str, tuple[bytes, str]] = {
    "LFS": (POINTER, "a pointer of Git LFS, which stands for a file; download the file itself, as by git lfs pull."),
    "page": (b"<!DOCTYPE html><html>Sign in</html>", "a web page, as failed downloads leave it; download the file"),
    "page with a mark": (b"\xef\xbb\xbf\r\n<html></html>", "a web page"),
    "zeros": (bytes(1000), "filled with zeros, as downloads leave it that were broken off; download the file again"),
    "JPEG": (picture("JPEG"), "a JPEG picture; give "),
    "GIF": (picture("GIF"), "a GIF picture; give "),
    "BMP": (picture("BMP"), "a BMP picture; give "),
    "TIFF": (picture("TIFF"), "a TIFF picture; give "),
    "AVIF": (b"\0\0\0\x1cftypavif\0\0\0\0", "an AVIF or HEIC picture; give "),
    "film": (b"\0\0\0\x1cftypisom\0\0\0\0", "a film or a sound; give "),
    "zip": (zipped(amy_pt=b"x" * 50), "a zip of other files (amy.pt). Unpack it, and give the file that is in it."),
    "empty zip": (zipped(), "a zip of other files (none)"),
    "npz": (npz(), "an archive of arrays of numpy (.npz)"),
    "gzip": (gzip.compress(b"x"), "a packed archive; unpack it, and give the file that is in it"),
    "tar": (tar(), "a packed archive; unpack it"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4", "a 7z archive; unpack it"),
    "rar": (b"Rar!\x1a\x07\1", "a RAR archive; unpack it"),
    "GGUF": (b"GGUF\3\0\0\0", "a model of GGUF"),
    "HDF5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    "JSON": (b'{"error":"Unauthorized","message":"Log in"}', "a text of JSON, such as settings or what a server says"),
    "text": (b"Entry not found", "a text, which begins 'Entry not found'. If a download left it, download the file"),
    "LFS with a mark": (b"\xef\xbb\xbf" + POINTER.replace(b"\n", b"\r\n"), "a pointer of Git LFS"),
    "LFS in UTF-16": (POINTER.decode().encode("utf-16"), "a pointer of Git LFS"),
    "text of another language": (
        "これはメモです。".encode(),
        "a text, which begins 'これはメモです。'. If a download left it",
    ),
    "text cut within a character": (("ü" * 300).encode()[:511], "a text, which begins 'üüüü"),
    "few zeros": (bytes(9), "filled with zeros"),
    "error of a store": (b"<?xml version='1.0'?>\n<Error><Code>AccessDenied</Code></Error>", "a text of XML, such as"),
    "page in XHTML": (
        b"<?xml version='1.0'?>\n<!DOCTYPE html>\n<html></html>",
        "a web page, as failed downloads leave",
    ),
    "SVG": (b"<svg xmlns='x'/>", "a text of XML, such as a picture in SVG"),
    "Photoshop": (b"8BPS\0\1" + bytes(90), "a picture of Photoshop; give "),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "a picture in PostScript; give "),
    "icon": (b"\0\0\1\0\1\0\x10\x10" + bytes(90), "an icon; give "),
    "companion of a Mac": (
        b"\0\5\x16\7\0\2\0\0Mac OS X" + bytes(90),
        "what a Mac lays beside a file, under its name with ._",
    ),
    "ONNX": (b"\x08\x07\x12\x07pytorch\x1a\x051.9.0", "a model of ONNX; give "),
    "shortcut": (b"L\0\0\0\1\x14\2\0" + bytes(90), "a shortcut of Windows; give the file that it leads to"),
    "plain pickle": (pickle.dumps({"a": 1}), "a pickle that torch.save did not write; save it by torch.save"),
    "PDF": (b"%PDF-1.7\n%\xe2\xe3", "a PDF document"),
}


NESTED: dict[str, dict[str, object]] = {
    "an IP-Adapter": {"image_proj": {"proj.weight": torch.ones(1)}, "ip_adapter": {"1.to_k_ip.weight": torch.ones(1)}},
    "a model that mends faces": {"params_ema": {"stylegan_decoder.style_conv1.weight": torch.ones(1)}},
    "a model that describes pictures (BLIP)": {"model": {"visual_encoder.cls_token": torch.ones(1)}},
    "a model of Custom Diffusion": {"unet": {"a": torch.ones(1)}, "modifier_token": {"<new1>": torch.ones(768)}},
    "the state of an optimizer, as torch has it": {"state": {0: {"step": 1}}, "param_groups": [{"lr": 0.1}]},
    "a LoRA": {"unet:0:up": torch.ones(1), "unet:0:down": torch.ones(1)},
}


@pytest.mark.parametrize("what", NESTED)
def test_what_lies_in_a_dict_of_dicts_is_named_too(what: str, tmp_path: Path) -> None:
    torch.save(NESTED[what], tmp_path / "x.pt")
    for reader in (read_embedding_file, read_hypernetwork_file):
        with pytest.raises(FileFormatError) as error:
            reader(tmp_path / "x.pt")
        assert f"it is {what}; " in str(error.value)
    if what != "a LoRA" and "BLIP" not in what:  # which have tensors, so that it is asked later
        with pytest.raises(FileFormatError) as error:
            open_tensors(tmp_path / "x.pt")
        assert f" is {what}; give " in str(error.value)


def test_a_newer_protocol_is_named(tmp_path: Path) -> None:
    torch.save({"emb_params": torch.ones(1, 8)}, tmp_path / "x.pt", pickle_protocol=4)
    for reader in READERS:
        with pytest.raises(FileFormatError, match=r"saved with pickle_protocol=4, .* save it with torch.save's own, 2"):
            reader(tmp_path / "x.pt")


@pytest.mark.parametrize("name", ["x.pt", "x.safetensors", "x.bin"])
@pytest.mark.parametrize("case", OTHERS)
def test_every_reader_names_what_it_was_given_instead(case: str, name: str, tmp_path: Path) -> None:
    content, words = OTHERS[case]
    (tmp_path / name).write_bytes(content)
    for reader in READERS:
        with pytest.raises(FileFormatError) as error:
            reader(tmp_path / name)
        text = str(error.value)
        assert words in text and text.startswith(str(tmp_path / name)) and text.endswith("."), reader
        assert "opcode" not in text and "enforce fail" not in text and "\n" not in text


@pytest.mark.parametrize("kind", ["PNG", "WebP"])
def test_pictures_that_may_hold_an_embedding_hold_no_weights(kind: str, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(picture(kind))
    for reader in (read_hypernetwork_file, open_tensors):
        with pytest.raises(FileFormatError, match=f"is a {kind} picture; give "):
            reader(tmp_path / "x.pt")
    with pytest.raises(FileFormatError, match="a picture without an embedding"):
        read_embedding_file(tmp_path / "x.pt")


def test_a_file_that_only_begins_alike_is_read(tmp_path: Path) -> None:
    """A header of 0x3c3c bytes begins like a web page."""
    saved = save_safetensors({"emb_params": torch.ones(1, 8)}, {"x": "y" * 15_000})
    header = saved[8:-32].ljust(0x3C3C)
    content = struct.pack("<Q", len(header)) + header + saved[-32:]
    (tmp_path / "x.safetensors").write_bytes(content)
    assert content.startswith(b"<")
    assert read_embedding_file(tmp_path / "x.safetensors").vectors["clip_l"].shape == (1, 8)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_damaged_file_is_called_by_its_suffix(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"x.{suffix}").write_bytes(b"\1\2\3\xff" * 9)
    with pytest.raises(FileFormatError) as error:
        read_embedding_file(tmp_path / f"x.{suffix}")
    known = "safetensors" if suffix == "safetensors" else "torch"
    assert str(error.value).endswith(f"cannot be read as a {known} file; it is damaged, truncated or of another kind.")


KINDS = {
    "a LoRA": ["lora_unet_a.lora_down.weight", "lora_unet_a.lora_up.weight", "lora_unet_a.alpha"],
    "a LyCORIS (LoHa), a kind of LoRA": ["lora_unet_a.hada_w1_a", "lora_unet_a.alpha"],
    "a LyCORIS (LoKr), a kind of LoRA": ["lora_te_a.lokr_w2_b", "lora_te_a.lokr_w1"],
    "a LyCORIS (OFT), a kind of LoRA": ["lora_unet_a.oft_blocks", "lora_unet_a.alpha"],
    "a LyCORIS": ["lora_unet_a_b.diff", "lora_unet_a_b.diff_b"],
    "a ControlNet": ["control_model.zero_convs.0.0.bias"],
    "a T2I-Adapter": ["body.0.block1.weight", "conv_in.weight"],
    "a base model of Stable Diffusion": ["model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.x"],
    "a VAE": ["encoder.down.0.block.0.norm1.weight", "decoder.conv_in.weight"],
    "a VAE without its encoder": ["decoder.conv_in.weight", "post_quant_conv.weight"],
    "a text encoder alone": ["text_model.embeddings.token_embedding.weight"],
    "a U-Net alone, as diffusers names it": ["down_blocks.0.resnets.0.conv1.weight"],
}


@pytest.mark.parametrize("what", KINDS)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_tensors_of_other_kinds_are_named_by_readers_of_adapters(what: str, suffix: str, tmp_path: Path) -> None:
    tensors = {name: torch.ones(1, 2) for name in KINDS[what]}
    path = tmp_path / f"x.{suffix}"
    if suffix == "pt":
        atomic_torch_save({"state_dict": tensors} if what == "a VAE" else tensors, path)
    else:
        path.write_bytes(save_safetensors(tensors))
    with pytest.raises(FileFormatError) as error:
        read_embedding_file(path)
    assert str(error.value) == f"{path} is no embedding: it is {what}; give the file of an embedding."
    with pytest.raises(FileFormatError) as error:
        read_hypernetwork_file(path)
    assert str(error.value) == f"{path} is no hypernetwork: it is {what}; give the file of a hypernetwork."


def test_adapters_and_their_optimizers_are_told_apart(tmp_path: Path) -> None:
    atomic_torch_save({"hash": "0", "optimizer_state_dict": {}}, tmp_path / "optim")
    atomic_torch_save({"emb_params": torch.ones(1, 8)}, tmp_path / "embedding")
    for name, words in (("optim", "the state of an optimizer, which lies"), ("embedding", "it is an embedding; give")):
        with pytest.raises(FileFormatError, match=f"is no hypernetwork: .*{words}"):
            read_hypernetwork_file(tmp_path / name)
    with pytest.raises(FileFormatError, match="is no embedding: it is the state of an optimizer"):
        read_embedding_file(tmp_path / "optim")


def test_a_file_too_large_for_an_embedding_is_named_too(tmp_path: Path) -> None:
    whole = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(17 * 2**20)}
    (tmp_path / "x.safetensors").write_bytes(save_safetensors(whole))
    with pytest.raises(FileFormatError, match="is a base model of Stable Diffusion; give the file of an embedding"):
        read_embedding_file(tmp_path / "x.safetensors")
    (tmp_path / "x.pt").write_bytes(b"\x80" + bytes(65 * 2**20))
    with pytest.raises(FileFormatError, match="has more than 64 MiB, far more than a file of this kind needs"):
        read_embedding_file(tmp_path / "x.pt")


def test_names_that_tell_nothing() -> None:
    assert describe_names(["blocks.0.weight", 768, "zork"]) is None
