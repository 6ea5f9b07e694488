"""Readers of published data sets and of image folders, each in its original layout."""
