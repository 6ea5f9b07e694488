"""Foundations of every room: errors, console, validation, files, names."""
