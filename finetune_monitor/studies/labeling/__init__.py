"""Ask people: choose the images, show them one at a time, keep every rating."""

from importlib.resources import files

PAGE = files(__name__) / "page"
"""The labeling page: HTML, scripts and styles."""
