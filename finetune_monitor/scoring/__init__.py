"""Score what other trainers have made: images, LoRA files, and base models."""
