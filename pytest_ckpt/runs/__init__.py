"""A job in a child process, and what was seen of it."""
