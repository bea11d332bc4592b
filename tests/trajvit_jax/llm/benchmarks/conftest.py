"""Small files in the benchmarks' published schemas, and a WordNet of ten senses."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from trajvit_jax.llm.benchmarks import registry
from trajvit_jax.llm.benchmarks.contract import Annotations
from trajvit_jax.llm.benchmarks.wordnet import WordNet

LICENCE = "  1 This stands for the licence, which is indented.\n"
# Words with the words right above them.
NOUNS = {
    "entity": [],
    "animal": ["entity"],
    "place": ["entity"],
    "dog": ["animal"],
    "cat": ["animal"],
    "park": ["place"],
}
VERBS = {"move": [], "walk": ["move"], "run": ["move"], "sleep": []}
VIDEO_MME = {
    "video_id": "001",
    "duration": "short",
    "domain": "Knowledge",
    "sub_category": "Humanity & History",
    "url": "https://www.youtube.com/watch?v=fFjv93ACGo8",
    "videoID": "fFjv93ACGo8",
    "question_id": "001-1",
    "task_type": "Counting Problem",
    "question": "How many red socks are there?",
    "options": ["A. 1.", "B. 4.", "C. 2.", "D. 3."],
    "answer": "D",
}
NEXTQA = {
    "video": "257",
    "frame_count": "719",
    "width": "320",
    "height": "240",
    "question": "where is this place",
    "answer": "1",
    "qid": "8",
    "type": "DL",
    "a0": "mall",
    "a1": "river",
    "a2": "swimming pool",
    "a3": "living room",
    "a4": "mountain",
}
NEXTQA_OPEN = {name: NEXTQA[name] for name in list(NEXTQA)[:8]} | {"answer": "a park"}
MLVU = {
    "video": "ego_35.mp4",
    "duration": 408.6,
    "question": "What did I drop?",
    "candidates": ["a sponge", "a pen", "an apple", "a banana"],
    "answer": "a pen",
    "question_type": "ego",
}
SCENE = {
    "video": "s.mp4",
    "duration": 10,
    "question": "Describe the scene.",
    "answer": "He runs.",
    "question_type": "subPlot",
    "scoring_points": ["He runs"],
}
CHOICE = {"question": "What is he doing?\nA. dunking\nB. passing", "answer": "B. passing"}
CAPTION = {
    "question": "Which caption matches?\nCaption A: He dunks.\nCaption B: He passes.",
    "answer": "Caption B: He passes.",
}
CAPTIONING = {
    "question": "Find what fits.\nInformation A: {'action': 'dunking'}\nInformation B: "
    "{'action': 'passing'}\nGenerated Caption:",
    "answer": "B. passing",
}
MOVIE = {
    "info": {"video_path": "1.mp4", "fps": 25.0, "num_frame": 1000, "class": "movie"},
    "caption": "A film.",
    "global": [{"question": "Is it day?", "answer": "Yes."}],
    "breakpoint": [{"time": 250, "question": "Who is it?", "answer": "A man."}],
}


def csv(*rows: dict[str, str]) -> str:
    lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
    return "\n".join(lines) + "\n"


class Folder:
    """Writes files into a folder and reads benchmarks from them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, name: str, content: Any = "") -> Path:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
        return path

    def read(self, benchmark: str, *files: Path) -> Annotations:
        return registry.find(benchmark).read(files)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def write_wordnet(folder: Path) -> None:
    """The database files of NOUNS and VERBS, with true byte offsets; wndb(5WN) is the format."""
    for ending, pos, words in (("noun", "n", NOUNS), ("verb", "v", VERBS)):
        template = "{at} 03 {pos} 01 {word} 0 {count:03} {links}| so called  \n"
        at, offsets = len(LICENCE), {}
        for word, above in words.items():
            offsets[word] = at
            links = "@ 00000000 n 0000 " * len(above)
            line = template.format(at="0" * 8, pos=pos, word=word, count=len(above), links=links)
            at += len(line)
        data = LICENCE
        for word, above in words.items():
            links = "".join(f"@ {offsets[one]:08} {pos} 0000 " for one in above)
            place = f"{offsets[word]:08}"
            data += template.format(at=place, pos=pos, word=word, count=len(above), links=links)
        index = "".join(
            f"{word} {pos} 1 {len(above)} {'@ ' * len(above)}1 0 {offsets[word]:08}  \n"
            for word, above in sorted(words.items())
        )
        (folder / f"data.{ending}").write_text(data)
        (folder / f"index.{ending}").write_text(LICENCE + index)
    for ending in ("adj", "adv"):
        for name in (f"data.{ending}", f"index.{ending}"):
            (folder / name).write_text(LICENCE)
    for ending, irregular in (("noun", ""), ("verb", "ran run\nslept sleep\n"), ("adj", "")):
        (folder / f"{ending}.exc").write_text(irregular)
    (folder / "adv.exc").write_text("")


@pytest.fixture(scope="session")
def wordnet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wordnet")
    write_wordnet(folder)
    return folder


@pytest.fixture(scope="session")
def wordnet(wordnet_folder: Path) -> WordNet:
    return WordNet(wordnet_folder)


@pytest.fixture(scope="session")
def marked() -> Callable[[str, Annotations, Sequence[str]], list[dict[str, float]]]:
    """What a benchmark's rules make of replies to its questions."""

    def mark(name: str, annotations: Annotations, replies: Sequence[str]) -> list[dict[str, float]]:
        pairs = zip(annotations.items, replies, strict=True)
        return [registry.find(name).marks(item, reply) for item, reply in pairs]

    return mark
