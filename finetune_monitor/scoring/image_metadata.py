"""What an image says about itself: the texts that ComfyUI, AUTOMATIC1111, and this package write into PNG files."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_monitor.base.images import image_texts
from finetune_monitor.scoring.patterns import WEIGHTS, read_name

LORA_TAG = re.compile(r"<lora:([^:>]+):[^>]*>")

LONGEST = 1_000_000
"""Characters of a text; ComfyUI's graphs have up to a tenth of it."""

DEEPEST = 20
"""Nodes of a graph between the sampler and the prompt."""


TOWARD_TEXT = ("text", "conditioning", "positive")
"""Inputs of ComfyUI's nodes that lead to the text of the prompt."""


@dataclass(frozen=True)
class Said:
    """What an image says; None where it says nothing.

    lora: the name of the LoRA file that it was made with.
    sampling_steps: the number of steps in which it was rendered.
    is_probe: its prompt does not name the subject.
    """

    prompt: str | None = None
    seed: int | None = None
    step: int | None = None
    epoch: int | None = None
    lora: str | None = None
    sampling_steps: int | None = None
    is_probe: bool = False


def read_metadata(path: Path) -> Said:
    """What the texts in a PNG file say; nothing for other files, and for texts of other tools."""
    texts = image_texts(path, LONGEST)
    for key, read in READERS.items():
        if key in texts:
            try:
                return _with_step(read(texts))
            except (ValueError, TypeError, KeyError, AttributeError, IndexError, StopIteration, RecursionError):
                return Said()
    return Said()


def _with_step(said: Said) -> Said:
    """With the step in the name of the LoRA file, if the image names none."""
    if said.lora is None or said.step is not None:
        return said
    named = read_name(re.sub(r"\.safetensors$", "", said.lora.replace("\\", "/")), WEIGHTS)
    return said if named is None else Said(said.prompt, said.seed, named.step, named.epoch, said.lora)


def _ours(texts: Mapping[str, str]) -> Said:
    own = {key.removeprefix("finetune_monitor."): text for key, text in texts.items()}
    steps = int(own["steps"]) if "steps" in own else None
    return Said(
        own["prompt"], int(own["seed"]), int(own["step"]), sampling_steps=steps, is_probe=own.get("probe") == "True"
    )


def _automatic1111(texts: Mapping[str, str]) -> Said:
    """The prompt, then `Negative prompt: …`, then settings in one line, such as `Steps: 20, …, Seed: 7, …`."""
    text = texts["parameters"]
    seed, lora = re.search(r"\bSeed: (\d+)", text), LORA_TAG.search(text)
    prompt = re.split(r"\n(?:Negative prompt: |Steps: )", text)[0]
    plain = " ".join(LORA_TAG.sub("", prompt).split())
    return Said(plain or None, int(seed[1]) if seed else None, lora=lora[1] if lora else None)


def _comfyui(texts: Mapping[str, str]) -> Said:
    """The nodes by id, each with its class and inputs; an input is a value, or another node's id with an output."""
    nodes = {key: node["inputs"] for key, node in json.loads(texts["prompt"]).items()}
    sampler = next(inputs for key in ("positive", "guider") for inputs in nodes.values() if key in inputs)
    seeds = (inputs.get(key) for inputs in (sampler, *nodes.values()) for key in ("seed", "noise_seed"))
    loras = (inputs.get("lora_name") for inputs in nodes.values())
    return Said(
        _text_of(nodes, sampler.get("positive", sampler.get("guider"))),
        next((seed for seed in seeds if type(seed) is int), None),
        lora=next((name for name in loras if isinstance(name, str)), None),
    )


def _text_of(nodes: Mapping[str, Any], link: Any, depth: int = 0) -> str | None:
    """The text behind a link: that of the node, or of one that it gets its conditioning or text from."""
    if isinstance(link, str):
        return link
    if depth > DEEPEST or not isinstance(link, list):
        return None
    inputs = nodes[link[0]]
    found = (_text_of(nodes, inputs[key], depth + 1) for key in TOWARD_TEXT if key in inputs)
    return next((text for text in found if text), None)


READERS: dict[str, Callable[[Mapping[str, str]], Said]] = {
    "finetune_monitor.step": _ours,
    "parameters": _automatic1111,
    "prompt": _comfyui,
}
"""How to read each tool's texts, by their key."""
