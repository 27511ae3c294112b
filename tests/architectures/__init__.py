"""Which architectures of the installed transformers become tiny models that train."""
