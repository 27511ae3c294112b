"""What a crash can leave behind: the calls of a job traced, and the states of its directory between them."""
