"""A study's storage in a bucket: what is shipped there, and how it comes back."""
