"""What Python finds first in the programs that a job starts: this folder lies on their path."""
