"""The token ids that the tiny models, texts and tokenizers agree on, so that any of them goes with any other."""

from __future__ import annotations

from typing import Final

PAD: Final = 0
BOS: Final = 1
EOS: Final = 2
UNK: Final = 3
FIRST_TOKEN: Final = 4
"""The first id that stands for text; the ids below are padding, begin, end and unknown."""

SMALLEST_VOCABULARY: Final = 8
VOCABULARY: Final = 64
"""The number of tokens unless one is asked for."""
