"""Small recognizers in ONNX format whose vectors can be computed by hand, and files that are none."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

MEANS = [
    helper.make_node("GlobalAveragePool", ["faces"], ["pooled"]),
    helper.make_node("Flatten", ["pooled"], ["flat"]),
    helper.make_node("MatMul", ["flat", "scale"], ["vectors"]),
]
"""The mean of each channel times (1, 2, 3)."""

MAP = MEANS[:1]

CLASSIFIER = [*MEANS, helper.make_node("Softmax", ["vectors"], ["probabilities"])]

PATCHES = [
    helper.make_node("AveragePool", ["faces"], ["patches"], kernel_shape=[8, 8], strides=[8, 8]),
    helper.make_node("Flatten", ["patches"], ["vectors"]),
]
"""Mean colors of patches of 8 x 8 pixels: not the person, yet another vector for another image."""


def save_onnx(
    path: Path,
    shape: tuple[str | int, ...] = ("n", 3, 8, 8),
    metadata: dict[str, str] | None = None,
    nodes: list[onnx.NodeProto] = MEANS,
    kind: int = TensorProto.FLOAT,
) -> Path:
    scale = numpy_helper.from_array(np.diag([1, 2, 3]).astype(np.float32), "scale")
    output = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    faces = helper.make_tensor_value_info("faces", kind, shape)
    graph = helper.make_graph(nodes, "recognizer", [faces], [output], [scale])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path
