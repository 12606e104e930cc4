"""Writes the trained recognizer as ONNX with its weights stored in half precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

import portraits as p
from recognizer import SIZE, Recognizer

SMALL = 256
LARGEST_CHANGE = 1e-2


def export(model: Recognizer, path: Path) -> None:
    """Writes the network with a free number of faces."""
    torch.onnx.export(
        model,
        (torch.zeros(2, 3, SIZE, SIZE),),
        str(path),
        input_names=["faces"],
        output_names=["embeddings"],
        dynamic_axes={"faces": {0: "n"}, "embeddings": {0: "n"}},
        opset_version=17,
        dynamo=False,
    )


def halve(graph: onnx.GraphProto) -> None:
    """Stores large weights as 16-bit numbers, which a Cast node widens again when the model is loaded."""
    for weight in graph.initializer:
        numbers = numpy_helper.to_array(weight)
        if numbers.dtype != np.float32 or numbers.size < SMALL:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(numbers.astype(np.float16), f"{name}_half"))
        graph.node.insert(0, helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))


def largest_change(model: Recognizer, path: Path) -> float:
    """Compares the written file with the network it was made from."""
    faces = torch.rand(8, 3, SIZE, SIZE) * 2 - 1
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (written,) = session.run(None, {"faces": faces.numpy()})
    with torch.no_grad():
        return float(np.abs(written - model(faces).numpy()).max())


def main() -> None:
    options = p.arguments()
    model = Recognizer()
    model.load_state_dict(torch.load(options.work / "recognizer.pt"))
    path = p.DEMO / "recognizer.onnx"
    export(model.eval(), path)
    written = onnx.load(path)
    halve(written.graph)
    helper.set_model_props(written, {"notice": p.NOTICE})
    onnx.save(written, path)
    change = largest_change(model, path)
    if change > LARGEST_CHANGE:
        raise ValueError(f"half precision changes the embeddings by {change:.4f}")
    print(f"largest change by half precision: {change:.5f}, size: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
