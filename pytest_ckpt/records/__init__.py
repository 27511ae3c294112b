"""What was seen, planned and judged: plain immutable data that every other part of the package shares."""
