"""Experiments: the same training under several settings, on Ray Tune, each trial an ordinary run directory."""
