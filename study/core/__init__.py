"""What every part stands on: errors, the console, validation, files, names."""
