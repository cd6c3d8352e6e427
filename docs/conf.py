"""Settings of the documentation site. It needs no network to build or to read."""

from typing import Any

from pygments.lexers.special import TextLexer

project = "layer2"
author = "the layer2 authors"
project_copyright = f"2026, {author}"

extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
root_doc = "index"
exclude_patterns = ["_build"]
nitpicky = True

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence", "deflist"]

html_theme = "furo"
html_title = "layer2"
html_show_sphinx = False
html_theme_options = {"source_view_link": None, "source_edit_link": None}


def setup(app: Any) -> None:
    """State diagrams are mermaid text: code forges draw them, this site shows the text."""
    app.add_lexer("mermaid", TextLexer)
