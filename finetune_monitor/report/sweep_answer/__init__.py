"""The results of a sweep, by setting and over the steps, with a verdict in words."""
