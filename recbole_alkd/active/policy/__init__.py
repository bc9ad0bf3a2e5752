"""Selection policies, one a file. Importing this package registers the built-in ones."""
