"""Settings of the documentation site: Sphinx with MyST Markdown and the theme Furo; `make docs` builds it."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from site_links import rewrite_included, rewrite_page  # noqa: E402
from site_reference import insert_reference, readable, restored, without_protocols_arguments  # noqa: E402

from finetune_monitor import __version__  # noqa: E402

project = "finetune_monitor"
copyright = "the finetune_monitor authors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
toc_object_entries = False  # headings name the classes
highlight_language = "none"  # a block without a language is output
default_role = "code"  # single backticks in docstrings

autodoc_typehints = "none"  # docstrings say what an argument is; signatures stay readable
autodoc_preserve_defaults = True
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "exclude-members": "Options, for_run, check, tracker, on_tracker",  # what a config's registry calls
}
napoleon_use_ivar = True
napoleon_custom_sections = [("Columns", "params_style")]
python_display_short_literal_types = True
nitpick_ignore_regex = [(r"py:.*", r"(?!finetune_monitor\.).*")]  # other libraries' names, which need a network

html_theme = "furo"
html_title = "finetune_monitor"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}


def setup(app):
    """Connect what turns the repository's files into pages."""
    app.connect("source-read", rewrite_page)
    app.connect("source-read", insert_reference)
    app.connect("include-read", rewrite_included)
    app.connect("autodoc-process-signature", without_protocols_arguments)
    app.connect("autodoc-process-docstring", readable, priority=100)  # before napoleon
    app.connect("autodoc-process-docstring", restored, priority=900)  # after it
