"""A tiny DINOv2 with random weights, as a folder in transformers layout."""

from pathlib import Path

import torch
from transformers import BitImageProcessor, Dinov2Config, Dinov2Model


def write_dino(folder: Path) -> Path:
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=7, initializer_range=0.5
    )
    Dinov2Model(config).save_pretrained(folder)
    BitImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28}, image_mean=[0.5] * 3, image_std=[0.2] * 3
    ).save_pretrained(folder)
    return folder
