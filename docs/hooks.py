"""What the site needs beside its pages: a page of changes, and no links to files outside of docs/."""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.structure.files import File

_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./(?!figures)[^)]+\)")


def on_page_markdown(markdown, page, **_):
    """A link to a file of the checkout has no page to go to: its words stay."""
    if page.file.src_uri.count("/"):
        return markdown
    return _OUTSIDE.sub(lambda match: f"`{match[1].strip('`')}`", markdown)


def on_files(files, config, **_):
    """CHANGELOG.md stands at the top of the repository; the site has it as a page."""
    changes = Path(config.config_file_path).with_name("CHANGELOG.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "changes.md", content=changes))
    return files
