"""The version of the package, read by packaging and recorded with every run."""

__version__ = "0.1.0"
