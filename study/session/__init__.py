"""A study from its options to its report."""
