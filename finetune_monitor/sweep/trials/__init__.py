"""One trial of a sweep: the training in a process of its own, and what watches over it."""
