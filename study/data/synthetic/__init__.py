"""Procedural street scenes with a long tail: the built-in data set."""
