"""Adapters: reports of a trial from Lightning, Hugging Face, MMEngine and Ultralytics.

Each file needs its own framework, and nothing here is imported by the rest of the package.
"""
