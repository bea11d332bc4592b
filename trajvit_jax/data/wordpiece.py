"""Captions -> WordPiece ids, with a vocabulary from a file or trained on the captions."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from jaxtyping import Bool, Int32
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from tokenization.files import write_text
from trajvit_jax.data.captions import cleaned
from trajvit_jax.models.settings import CLEANINGS, TextSettings, check_choice

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclasses.dataclass(frozen=True)
class TextTokens:
    """Padded captions.

    Attributes:
      ids: [CLS] pieces [SEP] padding.
      mask: False at padding.
    """

    ids: Int32[np.ndarray, "b l"]
    mask: Bool[np.ndarray, "b l"]


class WordPiece:
    """BERT-uncased's text processing over any WordPiece vocabulary."""

    def __init__(
        self, vocabulary: Sequence[str], length: int, cleaning: str = TextSettings.cleaning
    ):
        """Args: the pieces in the order of their ids; `length` ids a caption, cut or padded; and
        `cleaning` as in `TextSettings`.

        Raises:
          ValueError: a vocabulary without BERT's special tokens, or an unknown `cleaning`.
        """
        check_choice("text.cleaning", cleaning, CLEANINGS)
        ids = {piece: index for index, piece in enumerate(vocabulary)}
        missing = [piece for piece in SPECIAL[:4] if piece not in ids]
        if missing:
            raise ValueError(f"the vocabulary of {len(ids)} pieces lacks {', '.join(missing)}")
        self.vocabulary = tuple(vocabulary)
        self.length, self.cleaning = length, cleaning
        tokenizer = _bert(models.WordPiece(ids, unk_token="[UNK]"))
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[(p, ids[p]) for p in ("[CLS]", "[SEP]")]
        )
        tokenizer.enable_truncation(length)
        tokenizer.enable_padding(length=length, pad_id=ids["[PAD]"], pad_token="[PAD]")
        self._tokenizer = tokenizer

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        length: int,
        cleaning: str = TextSettings.cleaning,
    ) -> WordPiece:
        """Reads a BERT `vocab.txt`: one piece a line.

        Raises:
          FileNotFoundError: no such file.
          ValueError: a file that is no such vocabulary; the message names it.
        """
        path = Path(path)
        try:
            # One piece a line feed: splitlines() would also split at Unicode separators.
            lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
            return cls(lines, length, cleaning)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def train(
        cls,
        captions: Iterable[str],
        length: int,
        *,
        size: int = 30_522,
        cleaning: str = TextSettings.cleaning,
    ) -> WordPiece:
        """Learns at most `size` pieces from captions; the same captions give the same pieces."""
        tokenizer = _bert(models.WordPiece(unk_token="[UNK]"))
        captions = sorted(cleaned(captions, cleaning))
        # The trainer numbers inner letters in the order of a hash, and numbers settle ties: name
        # them first. Its pieces come in another such order: sort, so that runs agree.
        letters = [f"##{letter}" for letter in _inner_letters(tokenizer, captions)]
        trainer = trainers.WordPieceTrainer(
            vocab_size=size, special_tokens=[*SPECIAL, *letters], show_progress=False
        )
        tokenizer.train_from_iterator(captions, trainer)
        pieces = sorted(set(tokenizer.get_vocab()) - set(SPECIAL))
        return cls([*SPECIAL, *pieces], length, cleaning)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes `vocab.txt`; a reader never sees half of it."""
        write_text(path, "\n".join(self.vocabulary) + "\n")

    def __len__(self) -> int:
        """Number of pieces."""
        return len(self.vocabulary)

    def __call__(self, captions: Sequence[str]) -> TextTokens:
        """Ids of a list of captions."""
        encoded = self._tokenizer.encode_batch(cleaned(captions, self.cleaning))
        shape = (len(encoded), self.length)
        ids = np.array([item.ids for item in encoded], np.int32).reshape(shape)
        mask = np.array([item.attention_mask for item in encoded], bool).reshape(shape)
        return TextTokens(ids, mask)

    def words(self, ids: Int32[np.ndarray, " l"]) -> str:
        """The text that the ids stand for, as the model reads it: no case, unknown words gone."""
        return self._tokenizer.decode([int(number) for number in ids])


def _inner_letters(tokenizer: tokenizers.Tokenizer, captions: Iterable[str]) -> list[str]:
    normalize, split = tokenizer.normalizer, tokenizer.pre_tokenizer
    words = {
        word
        for caption in captions
        for word, _ in split.pre_tokenize_str(normalize.normalize_str(caption))
    }
    return sorted({letter for word in words for letter in word[1:]})


def _bert(model: models.Model) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer
