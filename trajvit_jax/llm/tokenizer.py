"""Text -> token ids through Hugging Face's `tokenizers`, with the chat template of Llama-3.

    <|begin_of_text|><|start_header_id|>user<|end_header_id|>

    What happens?<|eot_id|><|start_header_id|>assistant<|end_header_id|>

    A dog runs.<|eot_id|>

What people write never becomes one of these marks: it is cut as plain text.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tokenizers
from jaxtyping import Bool, Int32

from trajvit_jax.llm.conversation import PLACEHOLDER, Conversation

MEDIA = -1
"""In ids: here stands a video or an image, the next one of the conversation."""
TOKENIZER = "tokenizer.json"
BEGIN, END_TURN, END = "<|begin_of_text|>", "<|eot_id|>", "<|end_of_text|>"
START_HEADER, END_HEADER = "<|start_header_id|>", "<|end_header_id|>"
SPECIAL = (BEGIN, END, START_HEADER, END_HEADER, END_TURN)


class TokenizerError(ValueError):
    """A tokenizer that is not the model's; the message says why."""


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A conversation as token ids.

    Attributes:
      ids: `MEDIA` where a video or an image is read.
      target: tokens of answers, their end included: what training learns to say.
    """

    ids: Int32[np.ndarray, " l"]
    target: Bool[np.ndarray, " l"]

    @property
    def media(self) -> int:
        """Videos and images."""
        return int((self.ids == MEDIA).sum())


class ChatTokenizer:
    """The tokenizer of a model of the Llama-3 family.

    Args:
      cut: that of `tokenizers`.
      vocabulary: rows of the model's embedding table.
      source: what messages call it.

    Raises:
      TokenizerError: it lacks a mark of the chat template, or knows ids beyond the table.
    """

    def __init__(self, cut: tokenizers.Tokenizer, vocabulary: int, *, source: str = "tokenizer"):
        missing = [mark for mark in SPECIAL if cut.token_to_id(mark) is None]
        if missing:
            raise TokenizerError(
                f"{source} has no token {missing[0]}: it is not of the Llama-3 family; take "
                f"{TOKENIZER} from the folder that the weights came from"
            )
        highest = max(cut.get_vocab(with_added_tokens=True).values())
        if highest >= vocabulary:
            raise TokenizerError(
                f"{source} has token ids up to {highest}, the model only {vocabulary} rows for "
                f"them: it is of another model; take {TOKENIZER} from the folder that the "
                "weights came from"
            )
        self._cut = cut
        # Text that looks like a mark is text.
        self._cut.encode_special_tokens = True
        # A file may be of a program that cut or filled texts to one length.
        self._cut.no_truncation()
        self._cut.no_padding()
        self._marks = {mark: cut.token_to_id(mark) for mark in SPECIAL}

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        vocabulary: int,
        *,
        model: str | os.PathLike[str] = "",
    ) -> ChatTokenizer:
        """The tokenizer of a folder as Hugging Face keeps it.

        Args:
          folder: with tokenizer.json.
          vocabulary: rows of the model's embedding table.
          model: its folder; '' = the same.

        Raises:
          FileNotFoundError: no tokenizer.json there.
          TokenizerError: it cannot be read, or is of another model: its ids are not those that
            the model's config.json begins and ends sequences with, where that names any.
        """
        path = Path(folder) / TOKENIZER
        if not path.is_file():
            raise FileNotFoundError(
                f"{path} does not exist; Llama's `tokenizer.model` is not read: take the folder "
                "that Hugging Face's transformers loads"
            )
        try:
            cut = tokenizers.Tokenizer.from_file(os.fspath(path))
        except Exception as error:  # tokenizers raises a bare Exception
            raise TokenizerError(f"{path} is no tokenizer ({error}); download it again") from error
        made = cls(cut, vocabulary, source=os.fspath(path))
        made._check_marks(Path(model or folder) / "config.json", os.fspath(path))
        return made

    def _check_marks(self, config: Path, source: str) -> None:
        """Compares marks with those that a model's config.json names."""
        if not config.is_file():
            return  # a tokenizer's own folder
        told = json.loads(config.read_text("utf-8"))
        if not isinstance(told, dict):
            raise TokenizerError(f"{config} holds no JSON object; download it again")
        begin, ends = told.get("bos_token_id"), told.get("eos_token_id")
        ends = [ends] if isinstance(ends, int) else ends or []
        for name, wanted, own in (
            ("bos_token_id", [] if begin is None else [begin], (self.begin,)),
            ("eos_token_id", ends, self.stop),
        ):
            if not set(wanted) <= set(own):
                raise TokenizerError(
                    f"{config} has {name} {wanted}, {source} {list(own)}: it is of another "
                    f"model; take {TOKENIZER} from the folder that the weights came from"
                )

    @property
    def stop(self) -> tuple[int, ...]:
        """Ids after which an answer is over."""
        more = self._cut.token_to_id("<|eom_id|>")  # Llama-3.1: a message that calls a tool
        ends = (self._marks[END_TURN], self._marks[END])
        return ends if more is None else (*ends, more)

    @property
    def begin(self) -> int:
        """Id of what every sequence begins with."""
        return self._marks[BEGIN]

    def text_ids(self, text: str) -> list[int]:
        """Ids of plain text, without marks."""
        return self._cut.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; marks are left out."""
        return self._cut.decode([int(one) for one in ids], skip_special_tokens=True)

    def encode(self, conversation: Conversation, *, answer: bool = False) -> Encoded:
        """A conversation by the chat template; `answer` = up to where an answer is to begin."""
        ids, target = [self.begin], [False]

        def add(more: Sequence[int], *, told: bool = False) -> None:
            ids.extend(more)
            target.extend([told] * len(more))

        for turn in conversation.turns:
            add(self._header(turn.role))
            told = turn.role == "assistant"
            # A videos' place cuts the text around it.
            pieces = [turn.text.strip()] if told else PLACEHOLDER.split(turn.text.strip())
            for number, piece in enumerate(pieces):
                if number:
                    add([MEDIA])
                if piece:
                    add(self.text_ids(piece), told=told)
            add([self._marks[END_TURN]], told=told)
        if answer:
            add(self._header("assistant"))
        return Encoded(np.asarray(ids, np.int32), np.asarray(target, bool))

    def _header(self, role: str) -> list[int]:
        start, end = self._marks[START_HEADER], self._marks[END_HEADER]
        return [start, *self.text_ids(role), end, *self.text_ids("\n\n")]
