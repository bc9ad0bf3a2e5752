"""Selection policies, one a file. Importing this package registers the built-in ones."""

from recbole_alkd.registry import import_folder

import_folder(__name__, __path__)
