"""Studies that judge the metrics themselves; no part of a training."""
