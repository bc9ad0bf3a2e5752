"""What the site needs beside its pages: a page of changes, and no links to files outside of docs/."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.structure.files import File

_OUTSIDE = (  # from a page at the top, and from one in a folder
    re.compile(r"\[([^\]]+)\]\(\.\./(?!figures)[^)]+\)"),
    re.compile(r"\[([^\]]+)\]\(\.\./\.\./[^)]+\)"),
)


def on_page_markdown(markdown, page, **_):
    """A link to a file of the checkout has no page to go to: its words stay."""
    outside = _OUTSIDE[page.file.src_uri.count("/") > 0]
    return outside.sub(lambda match: f"`{match[1].strip('`')}`", markdown)


def on_files(files, config, **_):
    """CHANGELOG.md stands at the top of the repository; the site has it as a page."""
    changes = Path(config.config_file_path).with_name("CHANGELOG.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "changes.md", content=changes))
    return files
