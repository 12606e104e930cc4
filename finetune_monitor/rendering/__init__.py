"""Grid and live weights to images."""
