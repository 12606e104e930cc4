"""Score files of other trainers: images, LoRA files, and base models."""
