"""A tokenizer built on the spot, one token a letter, whose ids are those of the tiny models and texts."""

from __future__ import annotations

import string
from itertools import islice
from typing import TYPE_CHECKING, Final

from pytest_ckpt.errors import InvalidArgument
from pytest_ckpt.tiny.layout import FIRST_TOKEN, VOCABULARY
from pytest_ckpt.tiny.making import checked_vocabulary, quiet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS: Final = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
"""In the order of their ids, which are those of `layout`."""
_LONGEST: Final = 64
_PLAIN: Final = f" {string.ascii_lowercase}{string.digits}.,!?'\"-:;()\n"
_FURTHER: Final = f"{string.ascii_uppercase}{string.punctuation}"
_UNICODE: Final = range(0xA1, 0x110000)


def tokenizer(vocab_size: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """Return a fast tokenizer of `vocab_size` tokens, made without a download: one token for each letter.

    `<pad>`, `<bos>`, `<eos>` and `<unk>` are 0 to 3, as the models have them; then the space, small letters, digits,
    punctuation, capitals, further letters. What has no token is unknown; capitals are read as small letters until the
    vocabulary has room for them. Nothing is put around a text. It survives `save_pretrained` and `from_pretrained`.

    Args:
        vocab_size: the number of tokens, 8 or more; as for the model.

    Raises:
        InvalidArgument: `vocab_size` is out of range.
    """
    checked_vocabulary(vocab_size)
    with quiet():
        from transformers import PreTrainedTokenizerFast

        made: PreTrainedTokenizerFast = PreTrainedTokenizerFast(
            tokenizer_object=_letters(vocab_size),
            **SPECIAL_TOKENS,
            model_max_length=_LONGEST,
            model_input_names=["input_ids", "attention_mask"],
            clean_up_tokenization_spaces=False,
        )
    return made


def _letters(vocab_size: int) -> Tokenizer:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    wanted = vocab_size - FIRST_TOKEN
    letters = list(islice(_alphabet(), wanted))
    if len(letters) < wanted:
        message = f"vocab_size is {vocab_size}, but there are only {len(letters)} letters to make tokens of."
        raise InvalidArgument(message)
    vocabulary = {token: number for number, token in enumerate([*SPECIAL_TOKENS.values(), *letters])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL_TOKENS["unk_token"]))
    if "Z" not in vocabulary:
        made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made.decoder = decoders.Fuse()
    return made


def _alphabet() -> Iterator[str]:
    yield from dict.fromkeys(_PLAIN + _FURTHER)
    yield from (chr(code) for code in _UNICODE if chr(code).isprintable())
