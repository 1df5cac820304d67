"""The site of these documents: `sphinx-build -W docs build/site`.

The pages are plain Markdown that reads well in the repository too. Three things differ
on the site. A link whose text is a file's name shows the title of its page. A link to a
file that is no page leads to the repository, where GitHub's environment names one. The
tables of `CONTENTS` make the menu.
"""

import os
import re
from collections.abc import Iterator
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
default_role = "code"
CONTENTS = ("index", "notes/README")
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"

linkcheck_anchors = False  # pages that scripts build have none to be found

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
_ENTRY = re.compile(r"^(?:\| |\*\*)\[.*?\]\((.*?)\.md\)", re.MULTILINE)


def lead(link: re.Match, folder: Path, docs: Path) -> str:
    """A link of a page in `folder`, as the site has it."""
    text, target, anchor = link.groups(default="")
    path = (folder / target).resolve()
    if path.suffix == ".md" and path.is_relative_to(docs):
        return f"[]({target}{anchor})" if text in (path.name, target) else link[0]
    if not REPOSITORY:
        return text
    return f"[{text}]({REPOSITORY}/blob/main/{path.relative_to(ROOT)}{anchor})"


def menu(text: str) -> Iterator[str]:
    """A toctree of the pages before the first heading, and one for each heading."""
    _, *parts = re.split(r"^#+ (.*)\n", text, flags=re.MULTILINE)
    for title, part in zip(parts[::2], parts[1::2], strict=True):
        if pages := _ENTRY.findall(part):
            yield "\n```{toctree}\n:hidden:\n"
            yield f":caption: {title}\n" if text.count(f"\n## {title}\n") else ""
            yield "\n".join(["", *pages, "```\n"])


def change(app, name: str, source: list[str]) -> None:
    docs = Path(app.srcdir)
    folder = (docs / name).parent
    added = "".join(menu(source[0])) if name in CONTENTS else ""
    source[0] = _LINK.sub(lambda link: lead(link, folder, docs), source[0]) + added


def setup(app) -> None:
    app.connect("source-read", change)
