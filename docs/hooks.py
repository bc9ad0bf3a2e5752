"""What the site needs beside its pages: pages of the changes and of the notebooks, and no links to files
outside of docs/."""

from __future__ import annotations

import json
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
    """CHANGELOG.md stands at the top of the repository; the site has it, and each notebook, as a page."""
    changes = Path(config.config_file_path).with_name("CHANGELOG.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "changes.md", content=changes))
    for notebook in sorted(Path(config.docs_dir).glob("notebooks/*.ipynb")):
        content = notebook_page(json.loads(notebook.read_text(encoding="utf-8")), notebook.name)
        files.append(File.generated(config, f"notebooks/{notebook.stem}.md", content=content))
    return files


def notebook_page(notebook, name):
    """The cells of a notebook as Markdown; they are stored without outputs."""
    cells = [(cell["cell_type"], "".join(cell["source"]).strip()) for cell in notebook["cells"]]
    title, *rest = (f"```python\n{text}\n```" if kind == "code" else text for kind, text in cells)
    source = f"This page is the notebook [{name}]({name}), to download and run."
    return "\n\n".join([title, source, *rest, ""])
