"""The version of the package, read by packaging and written into what runs record."""

__version__ = "0.1.0"
