"""What lies on disk: which file holds which tensors, and which step they belong to."""
