"""Typed configs of a task and a trial, and the files that come with the package."""
