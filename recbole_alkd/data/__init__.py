"""Clicks, sessions, their split and rows, titles: what is trained on, from any file to RecBole's data set."""
