"""The site of these documents: `sphinx-build -W docs build/site`.

The pages are plain Markdown that reads well in the repository too. Two things differ on
the site: a link whose text is a file's name shows the title of its page, and a link to
a file that is no page leads to the repository, where GitHub's environment names one.
"""

import os
import re
from pathlib import Path

from seggpt_jax import __version__

ROOT = Path(__file__).parents[1]
REPOSITORY = ""
if "GITHUB_REPOSITORY" in os.environ:
    REPOSITORY = "{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}".format_map(os.environ)

project = html_title = "seggpt_jax"
version = release = __version__
copyright = "its authors, Apache-2.0"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_argparse_cli",
    "sphinx_copybutton",
]
exclude_patterns = ["examples"]
default_role = "code"
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"

html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_theme_options = {}
if REPOSITORY:
    html_theme_options |= {
        "source_repository": REPOSITORY,
        "source_branch": "main",
        "source_directory": "docs/",
    }

_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)]*)?\)")


def lead(link: re.Match, folder: Path, docs: Path) -> str:
    """A link of a page in `folder`, as the site has it."""
    text, target, anchor = link.groups(default="")
    path = (folder / target).resolve()
    if path.suffix == ".md" and path.is_relative_to(docs):
        return f"[]({target}{anchor})" if text == path.name else link[0]
    if not REPOSITORY:
        return text
    return f"[{text}]({REPOSITORY}/blob/main/{path.relative_to(ROOT)}{anchor})"


def lead_all(app, name: str, source: list[str]) -> None:
    docs = Path(app.srcdir)
    folder = (docs / name).parent
    source[0] = _LINK.sub(lambda link: lead(link, folder, docs), source[0])


def setup(app) -> None:
    app.connect("source-read", lead_all)
