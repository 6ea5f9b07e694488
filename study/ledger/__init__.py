"""What happened in a study: the records, the file that holds them, and the state they add up to."""
