"""Backbones and ALKDRec itself. Importing this package registers the built-in backbones."""

from recbole_alkd.model import attmix, recbole_models, session_fpmc, session_knn, session_stamp  # noqa: F401
