"""A captioner and taggers with the anatomy of the true ones and tiny weights, written to files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from transformers.models.bert.tokenization_bert import BertTokenizer
from transformers.models.blip.configuration_blip import BlipConfig
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.blip.modeling_blip import BlipForConditionalGeneration
from transformers.models.blip.processing_blip import BlipProcessor

BLIP_SIZE = 32
BLIP_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_COLORS = ("red", "blue", "green")
BLIP_WORDS = (*BLIP_SPECIAL, *_COLORS, "a", "the", "dog", "cat", "small", "picture", "of", "man", "on", "'", "s", ",")

WD_SIZE = 8
WD_TAGS = (
    # name, category, weights of the brightness (0..1) of blue, green, red, upper row, left column; constant
    ("general", 9, (0, 0, 0, 0, 0, 9)),
    ("blue_theme", 0, (8, 0, 0, 0, 0, -4)),
    ("green_theme_(colour)", 0, (0, 8, 0, 0, 0, -4)),
    ("red_theme", 0, (0, 0, 8, 0, 0, -4)),
    ("white_above", 0, (0, 0, 0, 20, 0, -19)),
    ("white_at_the_left", 0, (0, 0, 0, 0, 20, -19)),
    ("^_^", 0, (0, 0, 0, 0, 0, -0.4)),  # 0.40
    ("some_one", 4, (0, 0, 0, 0, 0, 1)),  # 0.73
)


def write_blip(folder: Path, seed: int = 0) -> Path:
    """A BLIP that captions at random, in transformers' layout; for pictures of different colours differently."""
    folder.mkdir(parents=True, exist_ok=True)
    words = folder / "vocab.txt"
    words.write_text("\n".join(BLIP_WORDS) + "\n")
    part = {"hidden_size": 32, "intermediate_size": 64, "projection_dim": 32, "num_hidden_layers": 2}
    config = BlipConfig(
        text_config={
            **part,
            "vocab_size": len(BLIP_WORDS) + 1,  # and a sign of a beginning that the tokenizer does not know
            "bos_token_id": len(BLIP_WORDS),
            "eos_token_id": 2,
            "sep_token_id": 3,
            "pad_token_id": 0,
            "encoder_hidden_size": 32,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
        },
        vision_config={**part, "num_attention_heads": 4, "image_size": BLIP_SIZE, "patch_size": 8},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BlipForConditionalGeneration(config)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    pictures = BlipImageProcessorPil(size={"height": BLIP_SIZE, "width": BLIP_SIZE})
    BlipProcessor(pictures, BertTokenizer(vocab=str(words))).save_pretrained(folder)
    return folder


def write_wd(
    folder: Path, *, batch: int | str = "N", model: str = "model.onnx", labels: str = "selected_tags.csv"
) -> Path:
    """A tagger with the input and output of the WD14 family, whose tags tell how bright its input is where."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"{number},{name},{category},{1000 - number}" for number, (name, category, _) in enumerate(WD_TAGS)]
    (folder / labels).write_text("\n".join(["tag_id,name,category,count", *rows]) + "\n", encoding="utf-8")
    weights = np.array([weights for _, _, weights in WD_TAGS], dtype=np.float32)
    write_onnx(folder / model, weights[:, :-1].T / 255, weights[:, -1], [batch, WD_SIZE, WD_SIZE, 3])
    return folder


def write_onnx(
    path: Path, weights: np.ndarray, bias: np.ndarray, shape: Sequence[int | str], end: str = "Sigmoid"
) -> None:
    """``end(features @ weights + bias)`` of five features: means of the channels, the upper row, the left column."""
    constants = {
        "weights": weights.astype(np.float32),
        "bias": bias.astype(np.float32),
        "zero": np.array([0]),
        "one": np.array([1]),
        "rows": np.array([1]),
        "columns": np.array([2]),
        "places": np.array([1, 2]),
        "all": np.array([1, 2, 3]),
    }
    nodes = [
        helper.make_node("ReduceMean", ["input_1:0", "places"], ["channels"], keepdims=0),
        helper.make_node("Slice", ["input_1:0", "zero", "one", "rows"], ["upper"]),
        helper.make_node("Slice", ["input_1:0", "zero", "one", "columns"], ["left"]),
        helper.make_node("ReduceMean", ["upper", "all"], ["upper_mean"], keepdims=0),
        helper.make_node("ReduceMean", ["left", "all"], ["left_mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["upper_mean", "one"], ["upper_column"]),
        helper.make_node("Unsqueeze", ["left_mean", "one"], ["left_column"]),
        helper.make_node("Concat", ["channels", "upper_column", "left_column"], ["features"], axis=1),
        helper.make_node("MatMul", ["features", "weights"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["logits"]),
        helper.make_node(end, ["logits"], ["predictions_sigmoid"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tagger",
        [helper.make_tensor_value_info("input_1:0", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("predictions_sigmoid", TensorProto.FLOAT, [shape[0], len(bias)])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def deepdanbooru_weights(tags: Sequence[str], seed: int = 0) -> dict[str, object]:
    """What model-resnet_custom_v3.pt holds, with narrow convolutions and random values."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, object] = {"tags": list(tags)}

    def add(number: int, inputs: int, outputs: int, kernel: int, gain: float = 1.0, bias: bool = True) -> None:
        spread = gain * (2 / (inputs * kernel**2)) ** 0.5
        weights[f"n_Conv_{number}.weight"] = torch.randn(outputs, inputs, kernel, kernel, generator=generator) * spread
        if bias:
            weights[f"n_Conv_{number}.bias"] = torch.randn(outputs, generator=generator) * 0.1

    add(0, 3, 4, 7)
    width, number = 4, 1
    for stage, (outputs, blocks) in enumerate(zip((8, 8, 12, 12, 16, 16), (3, 8, 20, 20, 3, 3), strict=True)):
        for block in range(blocks):
            inner = outputs // 4
            # the last one is weak, so that values do not grow from block to block
            convolutions = [(width, inner, 1, 1.0), (inner, inner, 3, 1.0), (inner, outputs, 1, 0.2)]
            if block == 0:
                convolutions.insert(3 if stage == 3 else 0, (width, outputs, 1, 1.0))
            for convolution in convolutions:
                add(number, *convolution)
                number += 1
            width = outputs
    add(number, width, len(tags), 1, gain=0.5, bias=False)
    return weights
