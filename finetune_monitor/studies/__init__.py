"""Studies that evaluate the metrics themselves; not part of training."""
