"""LLM teachers and their controls. Importing this package registers the built-in ones;
no LLM library is loaded."""

from recbole_alkd.registry import import_folder

import_folder(__name__, __path__)
