"""Backbones and ALKDRec itself. Importing this package registers the built-in backbones."""

from recbole_alkd.model import backbone, session_fpmc  # noqa: F401
