"""DreamBooth and LoRA training of Stable Diffusion v1.5 on Accelerate, with the monitor in it."""
