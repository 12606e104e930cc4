"""The default CLIP and rating scale; imports nothing, so `--help` stays fast."""

CLIP, PRETRAINED = "ViT-L-14-quickgelu", "openai"
"""A model name of open_clip, and the tag of its weights."""

SCALE = (0.0, 10.0)
"""Lowest and highest rating."""
