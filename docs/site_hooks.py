"""Hooks of the site: pages from the top of the repository, and links that lead out of docs/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TOP_PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "RELEASING.md")
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie at the top of the repository."""
    from mkdocs.structure.files import File

    for name in TOP_PAGES:
        content = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, name.lower(), content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Make links work on the site as they do in the repository."""
    at_top = page.file.src_uri in {name.lower() for name in TOP_PAGES}
    return LINK.sub(lambda link: site_link(link[1], link[2], at_top=at_top), markdown)


def site_link(text: str, target: str, *, at_top: bool) -> str:
    """A link of a page as it is on the site: to a page, or to a file's name where there is none.

    >>> site_link("losses", "docs/losses.md", at_top=True)
    '[losses](losses.md)'
    >>> site_link("changes", "../CHANGELOG.md", at_top=False)
    '[changes](changelog.md)'
    >>> site_link("examples", "../examples", at_top=False)
    'examples (`examples`)'
    """
    if re.match(r"[a-z]+:|#", target):
        return f"[{text}]({target})"
    path = target if at_top else f"docs/{target}"
    path = re.sub(r"^docs/\.\./", "", path)
    if path.startswith("docs/"):
        return f"[{text}]({path.removeprefix('docs/')})"
    if path.partition("#")[0] in TOP_PAGES:
        return f"[{text}]({path.lower()})"
    return f"{text} (`{path}`)"
