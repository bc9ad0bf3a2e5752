"""The web page, and the headers that keep it from asking any other host for anything."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

PAGE = Path(__file__).with_name("page.html").read_bytes()


def _hash(tag: str) -> str:
    """The CSP source of the one inline element ``tag``: nothing else that might get into the page is run."""
    element = re.search(rf"<{tag}>(.*?)</{tag}>".encode(), PAGE, re.DOTALL)
    assert element, f"page.html has no <{tag}>"
    return f"'sha256-{base64.b64encode(hashlib.sha256(element[1]).digest()).decode()}'"


_POLICY = (
    f"default-src 'none'; script-src {_hash('script')}; style-src {_hash('style')}; connect-src 'self'; "
    "img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
PAGE_HEADERS = [
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-cache"),
]
