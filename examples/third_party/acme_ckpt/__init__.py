"""What pytest-ckpt must know of acme_train, and what Acme asks of each checkpoint."""
