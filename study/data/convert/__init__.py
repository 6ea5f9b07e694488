"""Converters of annotation exports into the folder format: `python -m study.data convert`."""
