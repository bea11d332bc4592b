"""WordNet's database files (Princeton, release 3.0), read as NLTK reads them.

A folder or .zip with index.noun, data.noun, noun.exc and so on: the `wordnet` corpus of NLTK, the
Debian package `wordnet-base` (/usr/share/wordnet), or WordNet's own `dict`. The format is that of
the manual page wndb(5WN). Similarity is Wu and Palmer's (1994), with NLTK's choices where their
definition leaves one: tests compare with NLTK itself.
"""

from __future__ import annotations

import functools
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

# Parts of speech in the order in which a word's senses are listed, and their files' endings.
_FILES = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
# Endings and what replaces them on the way to a base form, by the manual page morphy(7WN).
_ENDINGS = {
    "n": (
        ("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"),
        ("shes", "sh"), ("men", "man"), ("ies", "y"),
    ),
    "v": (
        ("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"),
        ("ing", ""),
    ),
    "a": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "r": (),
}  # fmt: skip
_HYPERNYM = ("@", "@i")
_ROOT = ("root", 0)  # stands above all senses where they have no common one


class Sense(NamedTuple):
    """One sense of a word.

    Attributes:
      pos: its part of speech: n, v, a or r.
      offset: of its line in the data file.
    """

    pos: str
    offset: int


class WordNet:
    """The senses of words and how alike they are."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Reads the files, 22 MB in all.

        Raises:
          OSError: a file that cannot be read.
          ValueError: no WordNet.
        """
        files = _Files(Path(path))
        self._offsets: dict[str, dict[str, tuple[int, ...]]] = {}
        self._irregular: dict[str, dict[str, tuple[str, ...]]] = {}
        self._data = {}
        for pos, ending in _FILES.items():
            self._offsets[pos] = dict(map(_index_entry, files.lines(f"index.{ending}")))
            entries = (line.split() for line in files.lines(f"{ending}.exc"))
            self._irregular[pos] = {entry[0]: tuple(entry[1:]) for entry in entries if entry}
            self._data[pos] = files.read(f"data.{ending}")

    def base_forms(self, word: str, pos: str) -> list[str]:
        """The forms of a word that WordNet lists, the word itself first if it does.

        Args:
          word: in small letters.
          pos: part of speech: n, v, a or r.
        """
        forms = [word, *self._irregular[pos].get(word, ())]
        if len(forms) == 1:
            forms += [word[: -len(old)] + new for old, new in _ENDINGS[pos] if word.endswith(old)]
        return [form for form in dict.fromkeys(forms) if form in self._offsets[pos]]

    @functools.lru_cache(maxsize=2**16)  # noqa: B019 (one WordNet lives as long as the program)
    def first_sense(self, word: str) -> Sense | None:
        """The first sense of a word: as a noun, else as a verb, an adjective, an adverb."""
        word = word.lower()
        for pos in _FILES:
            for form in self.base_forms(word, pos):
                return Sense(pos, self._offsets[pos][form][0])
        return None

    @functools.lru_cache(maxsize=2**18)  # noqa: B019
    def similarity(self, one: Sense, other: Sense) -> float:
        """Wu and Palmer's similarity of two senses, up to 1.

        Twice the depth of their deepest common ancestor over the sum of their own depths through
        it. Verbs, adjectives and adverbs have no common root: one is put above them.
        """
        rooted = (one.pos, other.pos) != ("n", "n")
        first, second = (self._distances(sense, rooted=rooted) for sense in (one, other))
        common = first.keys() & second.keys()
        if not common:
            return 0.0
        # "Deepest" counts the shortest way to the top, and the depth taken then the longest.
        deepest = max(self._depth(sense, min) for sense in common)
        lowest = [sense for sense in common if self._depth(sense, min) == deepest]
        chosen = one if one in lowest else min(lowest, key=self._name)
        depth = self._depth(chosen, max) + 1
        above = self._distances(chosen, rooted=rooted)
        return 2 * depth / (_apart(first, above) + _apart(second, above) + 2 * depth)

    def _distances(self, sense: Sense, *, rooted: bool) -> dict[Sense, int]:
        """Steps up to each ancestor, the sense itself included."""
        if sense == _ROOT:
            return {sense: 0}
        steps: dict[Sense, int] = {}
        level, distance = [sense], 0
        while level:
            for each in level:
                steps.setdefault(each, distance)
            distance += 1
            level = [up for each in level for up in self._above(each) if up not in steps]
        if rooted:
            steps[Sense(*_ROOT)] = max(steps.values()) + 1
        return steps

    @functools.lru_cache(maxsize=2**17)  # noqa: B019
    def _depth(self, sense: Sense, which: Callable[[Iterable[int]], int]) -> int:
        """Steps to the top by the shortest way (`min`) or the longest (`max`)."""
        above = self._above(sense)
        return 1 + which(self._depth(up, which) for up in above) if above else 0

    def _above(self, sense: Sense) -> tuple[Sense, ...]:
        return () if sense == _ROOT else self._line(sense)[1]

    def _name(self, sense: Sense) -> str:
        """A sense's name as NLTK writes it, such as dog.n.01: it settles ties."""
        if sense == _ROOT:
            return "*ROOT*"
        word, _, pos = self._line(sense)
        number = self._offsets[sense.pos][word].index(sense.offset) + 1
        return f"{word}.{pos}.{number:02}"

    @functools.lru_cache(maxsize=2**17)  # noqa: B019
    def _line(self, sense: Sense) -> tuple[str, tuple[Sense, ...], str]:
        """First word, senses right above, and part of speech as written (s for satellites)."""
        data = self._data[sense.pos]
        line = data[sense.offset : data.find(b"\n", sense.offset)]
        text = line.decode("utf-8", "replace").partition("|")[0]
        fields = text.split()
        try:
            if int(fields[0]) != sense.offset:
                raise ValueError(f"it is that of {fields[0]}")
            words = int(fields[3], 16)
            count = int(fields[4 + 2 * words])
            links = fields[5 + 2 * words : 5 + 2 * words + 4 * count]
            pointers = zip(*(links[start::4] for start in range(4)), strict=True)
            above = tuple(
                Sense("a" if pos == "s" else pos, int(offset))
                for symbol, offset, pos, _ in pointers
                if symbol in _HYPERNYM
            )
            return fields[4].partition("(")[0].lower(), above, fields[2]
        except (ValueError, IndexError) as error:
            raise ValueError(
                f"WordNet's data.{_FILES[sense.pos]} has no right line at byte {sense.offset} "
                f"({error}): its files are not of one release"
            ) from error


def _apart(one: dict[Sense, int], other: dict[Sense, int]) -> int:
    """Steps between two senses by way of an ancestor of both."""
    return min(steps + other[sense] for sense, steps in one.items() if sense in other)


class _Files:
    """The database files, in a folder (or its `dict`) or in a .zip."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; --wordnet names WordNet's folder")
        self._zip = None
        if path.is_file():
            try:
                self._zip = zipfile.ZipFile(path)
            except zipfile.BadZipFile as error:
                raise ValueError(f"{path} is neither a folder nor a .zip file") from error
            found = [name for name in self._zip.namelist() if name.endswith("index.noun")]
        else:
            found = [str(file) for file in (path / "index.noun", *path.glob("*/index.noun"))]
            found = [name for name in found if Path(name).is_file()]
        if not found:
            raise ValueError(
                f"{path} holds no WordNet: there is no index.noun; give NLTK's corpora/wordnet.zip "
                "or the folder of WordNet's database files"
            )
        self._below = found[0].removesuffix("index.noun")

    def read(self, name: str) -> bytes:
        where = self._below + name
        try:
            return self._zip.read(where) if self._zip else Path(where).read_bytes()
        except KeyError as error:
            raise ValueError(f"{self._zip and self._zip.filename} lacks {where}") from error

    def lines(self, name: str) -> Iterator[str]:
        """Lines without the licence, which is indented."""
        for line in self.read(name).decode("utf-8").splitlines():
            if line and not line.startswith(" "):
                yield line


def _index_entry(line: str) -> tuple[str, tuple[int, ...]]:
    """A word and the offsets of its senses, the commonest first."""
    fields = line.split()
    senses, pointers = int(fields[2]), int(fields[3])
    offsets = fields[6 + pointers : 6 + pointers + senses]
    return fields[0], tuple(map(int, offsets))
