"""Studies of the metrics themselves; no part of a training."""
