"""Captions as they are, or in the form in which the released program reads them."""

from __future__ import annotations

import re
from collections.abc import Iterable

_DROPPED = re.compile(r"[,.'!?\"()*#:;~]")
_BLANKS = re.compile(r"\s{2,}")


def released_caption(text: str, max_words: int | None = None) -> str:
    """A caption after the released clean-up (`pre_text`): small letters, little punctuation.

    Most punctuation vanishes, so that "dog's" is one word; '-' and '/' part words.

    Args:
      text: the caption.
      max_words: how many of its first words stay; None = all.
    """
    text = _DROPPED.sub("", text.lower())
    text = text.replace("-", " ").replace("/", " ").replace("<person>", "person")
    text = _BLANKS.sub(" ", text).rstrip("\n").strip(" ")
    return " ".join(text.split(" ")[:max_words])


def cleaned(captions: Iterable[str], cleaning: str) -> list[str]:
    """Captions after the clean-up that `TextSettings.cleaning` names."""
    if cleaning == "released":
        return [released_caption(caption) for caption in captions]
    return list(captions)
