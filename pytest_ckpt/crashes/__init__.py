"""What a crash can leave behind: the calls of a job traced, and the states of its directory between them."""

from typing import Final

#: A descriptor so far from those of other files that writes to it, of what is seen of a job, need not be looked at.
UNWATCHED: Final = 1000
