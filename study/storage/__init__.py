"""Where studies and checkpoints are kept: a folder, or an S3 bucket."""
