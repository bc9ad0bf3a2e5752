"""The look of a command's ``--help``."""

from __future__ import annotations

import argparse


class DefaultsShown(argparse.HelpFormatter):
    """Help with the default behind every option that has one: not behind those that must be given, switches,
    and those whose default is nothing or is told in their own words."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        told = "(default" in text or "%(default)" in text
        nothing = default in (None, False, argparse.SUPPRESS)
        if told or nothing or action.required or not action.option_strings:
            return text
        shown = " ".join(map(str, default)) if isinstance(default, (list, tuple)) else str(default)
        return f"{text} (default: {shown.replace('%', '%%')})"
