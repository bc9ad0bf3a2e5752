"""Asking and paying: from chosen instances to labels in the store."""
