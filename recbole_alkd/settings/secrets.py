"""Settings that may hold a secret by mistake. Their errors never show the value:
logs and reports would keep it."""

from __future__ import annotations

import os
import re
import urllib.parse
from typing import Any

from recbole_alkd.settings.error import AlkdError

# what providers' keys begin with; none of them begins the name of a variable
_KEY_BEGINNINGS = re.compile(
    r"(sk|pk|rk|gsk|hf|r8|fw|tgp|csk|xai|glpat|gh[opsu]|github_pat|nvapi|pplx|key|esecret|dop|ya29|whsec|jina|voyage|vcp|pat|anyscale)_"
    r"(?![A-Z_]*\Z)|AIza|AKIA|ASIA|eyJ|ya29|LA-|AQ\."
)


def environment_name(value: Any) -> str | None:
    """The check of ``llm_api_key_env``: the name of a variable, and not the key itself."""
    if re.fullmatch(r"[A-Za-z_]\w*", value, re.ASCII) and (value in os.environ or not _like_a_key(value)):
        return None
    # whoever puts the key itself here must not find it in a log
    raise AlkdError(
        "llm_api_key_env: the value (not shown, it may be a key) is no name of an environment variable, "
        "such as OPENAI_API_KEY"
    )


def _like_a_key(name: str) -> bool:
    """Whether ``name`` may be an API key: a known beginning, or a word of letters and digits that nobody
    would call a thing."""
    if _KEY_BEGINNINGS.match(name) or len(name) > 64:
        return True
    # both in one word: MyKey is no name that a shell's user gives
    if name != name.upper() and name != name.lower():
        return len(name) >= 12
    words = name.split("_")
    mixed = [word for word in words if re.search(r"[A-Za-z]\d+[A-Za-z]|\d[A-Za-z]+\d", word)]
    hexadecimal = [word for word in words if len(word) >= 8 and re.fullmatch(r"[0-9a-fA-F]+", word)]
    return (
        any(len(word) >= 8 for word in mixed) or bool(hexadecimal) or any(len(word) >= 20 for word in words)
    )


def web_addresses(value: Any) -> str | None:
    """The check of ``llm_base_url``: one address, or a list of different ones; see ``web_address``."""
    if isinstance(value, str):
        return web_address(value)
    if not value or not all(isinstance(one, str) for one in value):
        return "an address, or a list of addresses with at least one"
    words = [words for one in value if (words := web_address(one))]  # none is shown before all are looked at
    if words:
        return f"a list of addresses, each {words[0]}"
    plain = [one.rstrip("/").casefold() for one in value]
    return None if len(set(plain)) == len(plain) else "a list of different addresses"


def web_address(value: Any) -> str | None:
    """Whether ``value`` is an address without a password or key in it: None, or what is allowed."""
    words = "http:// or https:// with a host, such as http://127.0.0.1:8000/v1"
    try:
        url = urllib.parse.urlsplit(value)
        good = url.scheme in ("http", "https") and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        good = False
    # the place of an address is the log, the run folder and the checkpoint
    if _holds_a_secret(urllib.parse.unquote(value)):
        raise AlkdError(
            "llm_base_url: the value (not shown, it holds a password or a key) is not allowed; "
            "allowed: an address alone; "
            "the key comes from the environment (llm_api_key_env)"
        )
    return None if good else words


def _holds_a_secret(address: str) -> bool:
    """Whether a password or a key is in an address: before its host, behind a name such as ``key=``,
    or as a part of its path."""
    if "@" in address or re.search(
        r"(?i)(key|token|secret|passw|pwd|sig|auth|credential)[^=&;/?#]*=", address
    ):
        return True
    parts = re.split(r"[/;?&#=,:]", address.partition("://")[2])
    return any(len(part) >= 20 and bool(_KEY_BEGINNINGS.match(part.replace("-", "_"))) for part in parts)
