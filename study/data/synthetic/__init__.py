"""The built-in data set: procedural street scenes with a long tail of rare classes."""
