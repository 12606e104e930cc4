"""The CLIP and the scale of ratings where none is named; imports nothing, so that commands show them at once."""

CLIP, PRETRAINED = "ViT-L-14-quickgelu", "openai"
"""A model of open_clip, and the tag of its weights."""

SCALE = (0.0, 10.0)
"""Least and greatest rating."""
