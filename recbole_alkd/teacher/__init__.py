"""LLM teachers and their controls. Importing this package registers the built-in ones; no LLM library is loaded."""
