"""Studies and checkpoints on disk: in a folder, or in an S3 bucket."""
