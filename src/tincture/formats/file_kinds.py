"""What a file is that is not what was asked for: one table for all readers, of adapters, base models and VAEs.

Two things tell it: the first bytes, and, in a file of tensors, their names. Names of tensors are those of the programs
that write such files; which of them are a base model that can be used is told in ``models/loading/checkpoint_kind.py``.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any, BinaryIO

from tincture.errors import FileFormatError

HEAD = 512
"""So many first bytes tell what can be told by them."""

_AGAIN = "download the file again"
_UNPACK = "unpack it, and give the file that is in it"
# First bytes (a regular expression), what it is, what to do; where nothing is, the reader says what is needed.
_BY_BYTES = tuple(
    (re.compile(start, re.DOTALL), what, remedy)
    for start, what, remedy in (
        (
            rb"version https?:",
            "a pointer of Git LFS, which stands for a file",
            "download the file itself, as by git lfs pull",
        ),
        (
            rb"\s*<(\?xml(?!.*<(!DOCTYPE )?html)|svg|Error>)",
            "a text of XML, such as a picture in SVG or what a server says of an error",
            "",
        ),
        (rb"\s*<", "a web page, as failed downloads leave it", _AGAIN),
        (rb"\0{64}|\0+\Z", "filled with zeros, as downloads leave it that were broken off", _AGAIN),
        (rb"\x89PNG\r\n", "a PNG picture", ""),
        (rb"\xff\xd8\xff", "a JPEG picture", ""),
        (rb"RIFF.{4}WEBP", "a WebP picture", ""),
        (rb"GIF8", "a GIF picture", ""),
        (rb"8BPS", "a picture of Photoshop", ""),
        (rb"%!PS|\xc5\xd0\xd3\xc6", "a picture in PostScript", ""),
        (rb"\0\0[\x01\x02]\0[\x01-\x40]\0", "an icon", ""),
        (rb"BM.{4}\0{4}", "a BMP picture", ""),
        (rb"II\*\0|MM\0\*", "a TIFF picture", ""),
        (rb".{4}ftyp(avif|avis|heic|heix|mif1|msf1)", "an AVIF or HEIC picture", ""),
        (rb".{4}ftyp|\x1aE\xdf\xa3|RIFF", "a film or a sound", ""),
        (rb"\x1f\x8b|BZh\d|\xfd7zXZ|\x28\xb5\x2f\xfd|.{257}ustar", "a packed archive", _UNPACK),
        (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
        (rb"Rar!", "a RAR archive", _UNPACK),
        (rb"GGUF|GGML|ggjt", "a model of GGUF, which llama.cpp and its kin use", ""),
        (rb"\x89HDF", "an HDF5 file, as Keras writes it", ""),
        (rb"\x93NUMPY", "an array of numpy", ""),
        (rb".{4}TFL3", "a model of TensorFlow Lite", ""),
        (rb"SQLite format 3", "a database", ""),
        (rb"%PDF", "a PDF document", ""),
        (
            rb"\0\x05\x16[\0\x07]",
            "what a Mac lays beside a file, under its name with ._ before it",
            "give the file itself",
        ),
        (rb"L\0\0\0\x01\x14\x02\0", "a shortcut of Windows", "give the file that it leads to"),
        (rb"\x08[\x01-\x20]\x12[\x01-\x40][\w .-]{3}", "a model of ONNX", ""),
        # In its place torch has a number of its own at the beginning.
        (
            rb"\x80[\x02-\x05](?!(\x95.{8})?\x8a\x0a)[\x20-\x7e}\])\x80-\xff]",
            "a pickle that torch.save did not write",
            "save it by torch.save, or as .safetensors",
        ),
        (rb"MZ|\x7fELF|\xcf\xfa\xed\xfe", "a program", ""),
        (
            rb"\s*[\[{]\s*[\"}\]{]",
            "a text of JSON, such as settings or what a server says of an error",
            "",
        ),
    )
)
_SHORTEST_TEXT = 5

DECODER_ALONE = "a VAE without its encoder"
_MAYBE_PREFIXED = r"(model\.diffusion_model\.|diffusion_model\.|model\.)?"
UNET_EXTENSIONS = (
    (r"edm_mean|edm_std", "a Playground 2.5 model"),
    (r"edm_vpred\..*", "a CosXL model (EDM)"),
    (r"control_model\..*", "a ControlNet"),
    (r"model\.diffusion_model\..*\.(time_stack|time_mixer|temporal_transformer)\..*", "a model of videos"),
    (r".*\.scale_weight|scaled_fp8", "a checkpoint whose float8 weights have scales of their own"),
)
"""What a file is whose U-Net is of Stable Diffusion's make, by a name that only such files have."""
OTHER_NAMES = (
    (r".*[._](lora_(up|down|A|B)|lora\.(up|down)|lora_linear_layer\.(up|down))(\..*)?", "a LoRA"),
    (r"(unet|text_encoder(_\d)?):\d+:(up|down)", "a LoRA"),
    (r".*\.to_(k|v|q|out)_custom_diffusion\..*|modifier_token(\..*)?", "a model of Custom Diffusion"),
    (r".*[._]hada_(w[12]|t[12])(_[ab])?", "a LyCORIS (LoHa), a kind of LoRA"),
    (r".*[._]lokr_(w[12](_[ab])?|t2)", "a LyCORIS (LoKr), a kind of LoRA"),
    (r".*[._](oft_(blocks|diag)|boft_(blocks|R))(\..*)?", "a LyCORIS (OFT), a kind of LoRA"),
    (r"(lora|lycoris)_(unet|te\d?)_.*\.(a1|b1|on_input|diff|w_norm|b_norm|dora_scale)(\..*)?", "a LyCORIS"),
    (r"(controlnet_cond_embedding|input_hint_block|control_model|lllite_unet.*)\..*", "a ControlNet"),
    (r"(adapter\.)?body\.\d+\.(block[12]|in_conv|resnets\.\d+\.block[12])\..*", "a T2I-Adapter"),
    (r"(ip_adapter|image_proj)\..*", "an IP-Adapter"),
    (r".*motion_modules\..*", "a motion module of AnimateDiff"),
    (_MAYBE_PREFIXED + r"joint_blocks\..*", "a Stable Diffusion 3 model"),
    (_MAYBE_PREFIXED + r"distilled_guidance_layer\..*", "a Chroma model"),
    (_MAYBE_PREFIXED + r"single_stream_modulation\..*", "a Flux 2 model"),
    (_MAYBE_PREFIXED + r"txt_in\.individual_token_refiner\..*", "a HunyuanVideo model"),
    (_MAYBE_PREFIXED + r"(double_blocks|single_transformer_blocks)\..*", "a Flux model"),
    (_MAYBE_PREFIXED + r"double_layers\..*", "an AuraFlow model"),
    (_MAYBE_PREFIXED + r"(cap_embedder|context_refiner)\..*", "a Lumina or Z-Image model"),
    (_MAYBE_PREFIXED + r"(clip_txt_mapper|clf\.1|down_blocks\.\d+\.\d+\.channelwise)\..*", "a Stable Cascade model"),
    (_MAYBE_PREFIXED + r"(text_states_proj|mlp_t5|pooler)\..*", "a Hunyuan-DiT model"),
    (_MAYBE_PREFIXED + r"head\.modulation", "a Wan model"),
    (_MAYBE_PREFIXED + r"(patchify_proj|caption_projection)\..*", "an LTX or PixArt model"),
    (_MAYBE_PREFIXED + r"y_embedder\..*", "a PixArt or Sana model"),
    (_MAYBE_PREFIXED + r"txt_(in|norm)\..*", "a Qwen-Image model"),
    (r"model\.\d+\.sub\.\d+\..*|(RRDB_trunk|body)\.\d+\..*", "a model that enlarges pictures"),
    (r"layers\.\d+\.residual_group\..*", "a model that enlarges pictures"),
    (r"((params(_ema)?|g_ema)\.)?(stylegan_decoder|position_emb|style_convs?)(\..*)?", "a model that mends faces"),
    (r"(model\.)?(visual_encoder|text_decoder)\..*", "a model that describes pictures (BLIP)"),
    (r"concept_embeds(_weights)?", "a safety checker"),
    (r"down_blocks\.\d+\.resnets\..*", "a U-Net alone, as diffusers names it"),
    (r"encoder\.down_blocks\.\d+\.resnets\..*", "a VAE"),
    (r"decoder\.(up_blocks|mid_block)\..*", DECODER_ALONE),
    (r"(encoder|decoder)\.layers\.\d+\.(conv\.)?\d*\.?(weight|bias)", "a tiny VAE (TAESD), which is for previews only"),
    (r"encoder\.block\.\d+\.layer\.\d+\.SelfAttention\..*", "a T5 text encoder"),
)
"""What a file is, by a name that only such files have; the first that fits counts."""
_EMBEDDING_KEYS = {"emb_params", "emp_params", "clip_l", "clip_g"}
_MODEL_PARTS = (
    (r"\d+\.[kv]\.linear\.\d+\.(weight|bias)", "a hypernetwork"),
    (r"model\.diffusion_model\.input_blocks\.0\.0\.weight", "a base model of Stable Diffusion"),
    (r"input_blocks\.0\.0\.weight", "a U-Net alone, without text encoder and VAE"),
    (r"(first_stage_model\.|vae\.)?encoder\.down\.0\.block\.0\.norm1\.weight", "a VAE"),
    (r"(first_stage_model\.|vae\.)?decoder\.(conv_in\.weight|up.*)", DECODER_ALONE),
    (r"(.*\.)?embeddings\.token_embedding\.weight|(.*\.)?token_embedding\.weight", "a text encoder alone"),
    (r"(vision_model|visual)\..*", "a picture encoder of CLIP"),
)


def describe_names(names: Iterable[object], *tables: Iterable[tuple[str, str]]) -> str | None:
    """What a file is whose tensors have these names, such as ``a LoRA``; None where nothing tells.

    Args:
        names: keys of what the file holds; those that are no texts are passed over.
        tables: pairs of a regular expression of whole names and what it tells; none for all that are known.
    """
    lines = "\n".join(name for name in names if isinstance(name, str))
    for table in tables or (UNET_EXTENSIONS, OTHER_NAMES, _MODEL_PARTS):
        for pattern, words in table:
            if re.search(f"^({pattern})$", lines, re.MULTILINE):
                return words
    return None


def describe_values(values: Mapping[Any, Any]) -> str | None:
    """The same of the dict in an adapter file, whatever program wrote it."""
    if "optimizer_state_dict" in values:
        return "the state of an optimizer, which lies beside an adapter"
    if "string_to_param" in values:
        return "an embedding"
    widths = [key for key in values if isinstance(key, int) and not isinstance(key, bool)]
    if widths and all(isinstance(values[width], tuple | list) for width in widths):
        return "a hypernetwork"
    if {"state", "param_groups"} <= values.keys():
        return "the state of an optimizer, as torch has it"
    inner = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    below = [f"{key}.{name}" for key, value in inner.items() for name in value]
    if what := describe_names([*values, *inner.get("state_dict", ()), *below]):
        return what
    is_single = len(values) == 1 and hasattr(next(iter(values.values())), "ndim")
    return "an embedding" if is_single or _EMBEDDING_KEYS & values.keys() else None


def refuse_other_file(path: str | os.PathLike[str], head: bytes, needed: str) -> None:
    """Refuses a file whose first bytes show that it holds no tensors.

    Args:
        path: for the message.
        head: at least ``HEAD`` first bytes, or all of a shorter file.
        needed: what to do where nothing better is known, such as ``give the file of an embedding``.

    Raises:
        FileFormatError: it is something else.
    """
    if head[8:9] == b"{" and not head[7]:  # a safetensors file
        return
    text = _text(head[:HEAD])
    for start, what, remedy in _BY_BYTES:
        if start.match(head if text is None else text.encode()):
            raise FileFormatError(f"{os.fspath(path)} is {what}; {remedy or needed}.")
    if text is not None and len(text) >= _SHORTEST_TEXT:
        begin = " ".join(text[:40].split())
        raise FileFormatError(
            f"{os.fspath(path)} cannot be read as a torch or safetensors file; it is a text, which begins {begin!r}. "
            f"If a download left it, download the file again."
        )


def _text(head: bytes) -> str | None:
    """The bytes as a text, without the mark that some programs set before it; None where they are none.

    Of UTF-8, and of UTF-16 with its mark.
    """
    wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        # The last character may have been cut in two.
        found = codecs.getincrementaldecoder("utf-16" if wide else "utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return None
    return found if all(character.isprintable() or character in "\t\n\r\f" for character in found) else None


def refuse_other_zip(path: str | os.PathLike[str], file: bytes | BinaryIO) -> None:
    """Refuses a zip file that ``torch.save`` did not write.

    Raises:
        FileFormatError: it is another one.
        ValueError, zipfile.BadZipFile: damaged.
    """
    with zipfile.ZipFile(io.BytesIO(file) if isinstance(file, bytes) else file) as archive:
        names = archive.namelist()
    if any(name.lower().endswith(".pkl") for name in names):
        return
    if names and all(name.endswith(".npy") for name in names):
        raise FileFormatError(f"{os.fspath(path)} is an archive of arrays of numpy (.npz), which holds no adapter.")
    listed = ", ".join(ascii(name[:60])[1:-1] for name in names[:3]) + (", …" if len(names) > 3 else "")
    raise FileFormatError(
        f"{os.fspath(path)} cannot be read as a torch or safetensors file; it is a zip of other files "
        f"({listed or 'none'}). {_UNPACK.capitalize()}."
    )
