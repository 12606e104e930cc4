"""What images and scores depend on besides weights and settings: package versions and the device."""

import platform
from importlib.metadata import version

import torch

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "peft", "open_clip_torch", "facenet-pytorch")


def versions() -> dict[str, str]:
    """Versions of the packages that affect images and scores."""
    return {"python": platform.python_version(), **{name: version(name) for name in ["finetune_monitor", *PACKAGES]}}


def device_name(device: torch.device) -> str:
    """The GPU's name, or the kind of processor."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device} ({platform.machine()})"
