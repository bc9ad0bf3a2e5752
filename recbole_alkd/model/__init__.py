"""Backbones and ALKDRec itself. Importing this package registers the built-in backbones."""

from recbole_alkd.registry import import_folder

import_folder(__name__, __path__)
