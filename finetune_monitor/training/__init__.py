"""DreamBooth and LoRA training of Stable Diffusion v1.5, from its config to the exported weights."""
