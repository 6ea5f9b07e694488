"""What happened in a study: records, their file, and the state that they add up to."""
