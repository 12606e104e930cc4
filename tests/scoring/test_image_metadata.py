"""PNG texts of ComfyUI, AUTOMATIC1111, and this package say the prompt, the seed, and the step."""

import json
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from finetune_monitor.scoring.image_metadata import Said, read_metadata

GRAPH = {
    "3": {
        "class_type": "KSampler",
        "inputs": {"seed": 7, "positive": ["6", 0], "negative": ["7", 0], "model": ["10", 0]},
    },
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a photo of sks person", "clip": ["10", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["10", 1]}},
    "10": {"class_type": "LoraLoader", "inputs": {"lora_name": "ana-000010.safetensors", "strength_model": 0.8}},
}
FLUX = {
    "1": {"class_type": "SamplerCustomAdvanced", "inputs": {"noise": ["2", 0], "guider": ["3", 0]}},
    "2": {"class_type": "RandomNoise", "inputs": {"noise_seed": 7}},
    "3": {"class_type": "BasicGuider", "inputs": {"conditioning": ["4", 0]}},
    "4": {"class_type": "CLIPTextEncode", "inputs": {"text": "a photo of sks person"}},
}
GUIDED = {
    **GRAPH,
    "3": {"class_type": "KSampler", "inputs": {"seed": 7, "positive": ["8", 0]}},
    "8": {"class_type": "FluxGuidance", "inputs": {"conditioning": ["6", 0]}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["9", 0]}},
    "9": {"class_type": "PrimitiveString", "inputs": {"text": "a photo of sks person"}},
}
LOOP = {
    "3": {"class_type": "KSampler", "inputs": {"seed": 7, "positive": ["8", 0]}},
    "8": {"class_type": "Reroute", "inputs": {"conditioning": ["8", 0]}},
}
A1111 = (
    "a photo of sks person <lora:ana-step00001500:0.8>\nNegative prompt: blurry\n"
    "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 7, Size: 512x512"
)
OURS = {"finetune_monitor.prompt": "a cat", "finetune_monitor.seed": "7", "finetune_monitor.step": "300"}


def png(folder: Path, **texts: str) -> Path:
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_itxt(key, text)
    Image.new("RGB", (8, 8)).save(folder / "image.png", pnginfo=info)
    return folder / "image.png"


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (
            {"prompt": json.dumps(GRAPH), "workflow": "{}"},
            Said("a photo of sks person", 7, epoch=10, lora="ana-000010.safetensors"),
        ),
        ({"prompt": json.dumps(GUIDED)}, Said("a photo of sks person", 7, epoch=10, lora="ana-000010.safetensors")),
        ({"parameters": A1111}, Said("a photo of sks person", 7, step=1500, lora="ana-step00001500")),
        ({"parameters": "a cat\nSteps: 20, Seed: 7"}, Said("a cat", 7)),
        ({"parameters": ""}, Said()),
        (OURS, Said("a cat", 7, step=300)),
        ({"prompt": json.dumps(FLUX)}, Said("a photo of sks person", 7)),
        ({"prompt": json.dumps(LOOP)}, Said(seed=7)),
        ({"prompt": "a plain text"}, Said()),
        ({"prompt": "[1, 2]"}, Said()),
        ({"prompt": '{"1": 3}'}, Said()),
        ({"prompt": "[" * 100_000}, Said()),
        ({"Title": "holiday"}, Said()),
        ({}, Said()),
    ],
)
def test_what_png_texts_say(tmp_path, texts, said):
    assert read_metadata(png(tmp_path, **texts)) == said


def test_other_files_say_nothing(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "image.jpg")
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    assert read_metadata(tmp_path / "image.jpg") == read_metadata(tmp_path / "damaged.png") == Said()
