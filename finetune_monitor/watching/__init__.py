"""The live view: the runs below a folder, their pages, and the buttons that steer them."""

from importlib.resources import files

PAGE = files(__name__) / "page"
"""Its HTML, scripts, and styles."""
