"""What must hold of the checkpoints of a job: pure functions over records, one module a family."""
