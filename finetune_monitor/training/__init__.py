"""DreamBooth and LoRA training of Stable Diffusion v1.5, from config to weights."""
