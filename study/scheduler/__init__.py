"""What a study does next, and who goes on; knows nothing of Ray."""
