"""Conversations about videos, and the public JSON of LLaVA-Video that holds them.

A file is one JSON list (or one object a line, `.jsonl`):

    {"id": "a", "video": "academic_source/Charades/a.mp4",
     "conversations": [{"from": "human", "value": "<image>\\nWhat happens?"},
                       {"from": "gpt", "value": "A dog runs."}]}

`video` (or `image`) is a path or a list of paths. `<image>` and `<video>` are the same
placeholder: one for each, in their order.
"""

from __future__ import annotations

import dataclasses
import glob
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]
PLACEHOLDER = re.compile("<(?:video|image)>")
_ROLES: Mapping[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
_MOST_NAMES = 3
_LOG = logging.getLogger(__name__)


class ConversationError(ValueError):
    """A conversation that does not hold together; the message names it."""


@dataclasses.dataclass(frozen=True)
class Turn:
    """What one side says. A placeholder in it stands for a video or an image."""

    role: Role
    text: str


@dataclasses.dataclass(frozen=True)
class Conversation:
    """Turns, and the videos and images that their placeholders stand for.

    Attributes:
      id: of the conversation.
      turns: the system's first, if there is one; then user and assistant alternate.
      videos: paths as the file gives them, or other names, in the order of the placeholders.

    Raises:
      ConversationError: no turn of the user first, roles that do not alternate, an empty answer,
        a placeholder in an answer, or another number of placeholders than of videos.
    """

    id: str
    turns: tuple[Turn, ...]
    videos: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        spoken = [turn for turn in self.turns if turn.role != "system"]
        if len(self.turns) - len(spoken) > 1 or "system" in [t.role for t in self.turns[1:]]:
            raise ConversationError(f"conversation {self.id!r}: the system speaks once, and first")
        for number, turn in enumerate(spoken):
            if turn.role != ("user", "assistant")[number % 2]:
                raise ConversationError(
                    f"conversation {self.id!r}: turn {number + 1} is the {turn.role}'s; user and "
                    "assistant take turns, the user first"
                )
            if turn.role == "assistant" and not turn.text.strip():
                raise ConversationError(f"conversation {self.id!r}: answer {number} is empty")
        if not spoken:
            raise ConversationError(f"conversation {self.id!r} has no turn of the user")
        found = sum(len(PLACEHOLDER.findall(turn.text)) for turn in spoken if turn.role == "user")
        every = sum(len(PLACEHOLDER.findall(turn.text)) for turn in self.turns)
        if every > found:
            raise ConversationError(
                f"conversation {self.id!r}: a placeholder <video> or <image> stands in what is no "
                "turn of the user"
            )
        if found != len(self.videos):
            raise ConversationError(
                f"conversation {self.id!r}: {found} placeholders (<video> or <image>) for "
                f"{len(self.videos)} videos; write one for each video, where it is to be read"
            )


def question(text: str, videos: tuple[str, ...] = (), *, id: str = "question") -> Conversation:
    """One question about videos that are read before it, unless it has placeholders itself."""
    if videos and not PLACEHOLDER.search(text):
        text = "<video>\n" * len(videos) + text
    return Conversation(id, (Turn("user", text),), videos)


def files_of(patterns: Iterable[str]) -> list[str]:
    """The files that names or patterns (`*`, `**`, `?`) stand for, each once, in their order.

    Raises:
      FileNotFoundError: a pattern that no file has the name of.
    """
    files: dict[str, None] = {}
    for pattern in patterns:
        found = [pattern]
        if glob.has_magic(pattern) and not Path(pattern).is_file():
            found = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 - any root
        if not found:
            raise FileNotFoundError(f"no file is named like {pattern} (cwd {Path.cwd()})")
        files |= dict.fromkeys(found)
    return list(files)


def read_conversations(path: str | os.PathLike[str], *, max_bad: float = 0.0) -> list[Conversation]:
    """All conversations of a file, in its order; the few that cannot be used are told of.

    Args:
      path: of the file.
      max_bad: the share of its entries that may be left out because they do not hold together.

    Raises:
      FileNotFoundError: no such file.
      ConversationError: no such list, or more entries that do not hold together; the message names
        the file and the first of them.
    """
    path = Path(path)
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(f"no file {path} (cwd {Path.cwd()}) of conversations") from None
    try:
        entries = list(_entries(text, lines=path.suffix == ".jsonl"))
    except ValueError as error:
        raise ConversationError(f"{path} is no JSON list of conversations: {error}") from error
    found, problems = [], []
    for number, entry in enumerate(entries, 1):
        try:
            found.append(from_llava(entry, number))
        except ConversationError as error:
            problems.append(str(error))
    if problems:
        told = f"{path}: {len(problems)} of {len(entries)} conversations cannot be used: "
        told += first_of(problems)
        if len(problems) > max_bad * len(entries):
            raise ConversationError(
                f"{told}. That is more than max_bad = {max_bad:g} of them" if max_bad else told
            )
        _LOG.warning("%s; they are left out", told)
    if not found:
        raise ConversationError(f"{path} holds no conversation")
    return found


def first_of(problems: Sequence[str]) -> str:
    """The first few of them, and how many more there are."""
    more = len(problems) - _MOST_NAMES
    return "; ".join(problems[:_MOST_NAMES]) + (f"; and {more} more" if more > 0 else "")


def _entries(text: str, *, lines: bool) -> Iterator[Any]:
    if lines:
        for line in filter(str.strip, text.split("\n")):
            yield json.loads(line)
        return
    entries = json.loads(text)
    if not isinstance(entries, list):
        raise ValueError(f"it holds a {type(entries).__name__}")
    yield from entries


def from_llava(entry: Any, number: int = 1) -> Conversation:
    """One entry of a LLaVA-Video file.

    A conversation with one video and no placeholder reads it first, as LLaVA does.

    Args:
      entry: as JSON has it.
      number: of the entry, for one without `id`.

    Raises:
      ConversationError: it is no such entry, or does not hold together.
    """
    if not isinstance(entry, Mapping) or not isinstance(entry.get("conversations"), list):
        raise ConversationError(f"entry {number} has no list `conversations`")
    name = str(entry.get("id", number))
    videos = entry.get("video", entry.get("image", []))
    videos = (videos,) if isinstance(videos, str) else tuple(videos or ())
    turns = []
    for turn in entry["conversations"]:
        who = turn.get("from") if isinstance(turn, Mapping) else None
        if who not in _ROLES or not isinstance(turn.get("value"), str):
            raise ConversationError(
                f"conversation {name!r}: a turn needs `from` ({', '.join(_ROLES)}) and `value`, "
                f"got {str(turn)[:80]}"
            )
        turns.append(Turn(_ROLES[who], turn["value"]))
    if not all(isinstance(video, str) and video for video in videos):
        raise ConversationError(f"conversation {name!r}: `video` must be a path or several")
    if len(videos) == 1 and not any(PLACEHOLDER.search(turn.text) for turn in turns):
        first = next((i for i, turn in enumerate(turns) if turn.role == "user"), None)
        if first is not None:
            turns[first] = Turn("user", f"<video>\n{turns[first].text}")
    return Conversation(name, tuple(turns), videos)


def to_llava(conversation: Conversation) -> dict[str, Any]:
    """The same as an entry of a LLaVA-Video file."""
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    videos = conversation.videos
    entry: dict[str, Any] = {"id": conversation.id}
    if videos:
        entry["video"] = videos[0] if len(videos) == 1 else list(videos)
    turns = [{"from": names[turn.role], "value": turn.text} for turn in conversation.turns]
    return entry | {"conversations": turns}
