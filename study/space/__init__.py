"""Search spaces: the YAML grammar, params to configs and back."""
