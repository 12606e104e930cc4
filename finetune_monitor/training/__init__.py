"""DreamBooth and LoRA training of Stable Diffusion and SDXL, from config to weights."""
