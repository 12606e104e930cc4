"""From a grid and live weights to images."""
