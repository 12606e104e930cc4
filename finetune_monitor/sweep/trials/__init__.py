"""One trial of a sweep: the training in its own process, and its supervisor."""
