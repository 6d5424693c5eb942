"""Pictures for tests, drawn here: a face that detectors take for one, and textures that compress like photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageDraw, ImageFilter


def texture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Soft random colours, different for each seed."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    return Image.fromarray(np.clip(smooth + rng.integers(-6, 7, smooth.shape), 0, 255).astype(np.uint8))


def face(side: int) -> Image.Image:
    """A drawn face, seen from the front, on plain grey."""
    unit = side / 100
    picture = Image.new("RGB", (side, side), (90, 110, 130))
    pen = ImageDraw.Draw(picture)

    def ellipse(x: float, y: float, across: float, down: float, colour: tuple[int, int, int]) -> None:
        pen.ellipse(tuple(unit * edge for edge in (x - across, y - down, x + across, y + down)), fill=colour)

    ellipse(50, 46, 38, 46, (60, 42, 30))
    ellipse(50, 54, 30, 40, (222, 180, 150))
    for x in (36, 64):
        ellipse(x, 44, 9, 5, (150, 105, 85))
        pen.line([((x - 9) * unit, 38 * unit), ((x + 9) * unit, 38 * unit)], (70, 45, 30), width=int(3 * unit))
        ellipse(x, 45, 7, 3.2, (240, 240, 240))
        ellipse(x, 45, 3.2, 3.2, (40, 25, 20))
    pen.polygon([(50 * unit, 44 * unit), (45 * unit, 63 * unit), (55 * unit, 63 * unit)], fill=(236, 198, 168))
    ellipse(46.5, 64, 2, 1.2, (140, 90, 75))
    ellipse(53.5, 64, 2, 1.2, (140, 90, 75))
    ellipse(50, 76, 11, 3.6, (170, 80, 80))
    pen.line([(39 * unit, 76 * unit), (61 * unit, 76 * unit)], (110, 45, 50), width=max(1, int(1.2 * unit)))
    return picture.filter(ImageFilter.GaussianBlur(1.2 * unit))


def portrait(width: int, height: int, left: int, top: int, side: int) -> Image.Image:
    """A face at a place in a plain picture."""
    picture = Image.new("RGB", (width, height), (90, 110, 130))
    picture.paste(face(side), (left, top))
    return picture


def write_yunet(path: Path) -> Path:
    """An ONNX file with YuNet's inputs and outputs, to which every white square of 32 x 32 pixels is a face."""
    nodes, constants = [], []

    def constant(name: str, value: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(value, name))
        return name

    def convolve(source: str, name: str, weights: np.ndarray, bias: np.ndarray | None = None) -> str:
        inputs = [source, constant(f"{name}.weights", weights.astype(np.float32))]
        inputs += [] if bias is None else [constant(f"{name}.bias", bias.astype(np.float32))]
        nodes.append(helper.make_node("Conv", inputs, [name]))
        return name

    grey = convolve("input", "grey", np.full((1, 3, 1, 1), 1 / 3))
    outputs = []
    for stride in (8, 16, 32):
        nodes.append(
            helper.make_node("AveragePool", [grey], [f"mean{stride}"], kernel_shape=[stride] * 2, strides=[stride] * 2)
        )
        mean = f"mean{stride}"
        weight = np.full((1, 1, 1, 1), 1.0 if stride == 32 else 0.0)
        convolve(mean, f"logit{stride}", weight, np.array([-250.0]))
        nodes.append(helper.make_node("Sigmoid", [f"logit{stride}"], [f"score{stride}"]))
        box = convolve(mean, f"box{stride}", np.zeros((4, 1, 1, 1)), np.array([0.5, 0.5, 0.0, 0.0]))
        points = convolve(mean, f"points{stride}", np.zeros((10, 1, 1, 1)), np.zeros(10))
        for name, source, size in (
            ("cls", f"score{stride}", 1),
            ("obj", f"score{stride}", 1),
            ("bbox", box, 4),
            ("kps", points, 10),
        ):
            turned, out = f"{name}{stride}.turned", f"{name}_{stride}"
            nodes.append(helper.make_node("Transpose", [source], [turned], perm=[0, 2, 3, 1]))
            shape = constant(f"{out}.shape", np.array([1, -1, size], dtype=np.int64))
            nodes.append(helper.make_node("Reshape", [turned, shape], [out]))
            outputs.append(helper.make_tensor_value_info(out, TensorProto.FLOAT, [1, None, size]))
    picture = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "height", "width"])
    graph = helper.make_graph(nodes, "faces", [picture], outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7), path)
    return path
