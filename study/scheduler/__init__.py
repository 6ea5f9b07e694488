"""Decides what a study does next and which trials go on; knows nothing of Ray."""
