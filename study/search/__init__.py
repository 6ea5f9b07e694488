"""What is tried next and who goes on: pure decisions, so that a simulator can drive them."""
