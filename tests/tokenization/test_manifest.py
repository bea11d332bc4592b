"""Manifests, patterns, and what is wrong with them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tokenization.manifest import (
    ManifestError,
    entries_from_pattern,
    fingerprint,
    read_entries,
    read_manifest,
)


def write(folder: Path, *lines: object) -> Path:
    path = folder / "clips.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", "utf-8")
    return path


def test_reads_all_keys_and_keeps_the_others(tmp_path):
    path = write(
        tmp_path,
        {
            "id": "a",
            "path": "sub/a.mp4",
            "start": 1,
            "end": 2.5,
            "captions": ["x", "ü"],
            "label": "run",
            "frames": 85,
            "boxes": [{"time": 1}],
        },
        "",
        {"id": 7, "path": "b.mp4", "captions": "one"},
    )
    first, second = read_manifest(path)
    assert (first.id, first.path) == ("a", tmp_path / "sub/a.mp4")
    assert (first.start, first.end, first.captions, first.label) == (1.0, 2.5, ("x", "ü"), "run")
    assert first.extra == {"frames": 85, "boxes": [{"time": 1}]}
    assert first.problem is None
    assert (second.id, second.captions, second.start, second.label) == ("7", ("one",), None, None)


def test_misspelt_keys_are_told_in_a_line_each(tmp_path, caplog):
    """Keys of others, and those of an entry that has the right one, are silent."""
    others = {"views": 3, "labels": [1], "options": ["x"], "boxes": [], "duration": 3, "url": "u"}
    lines: list[dict] = [{"id": str(i), "path": f"{i}.mp4", **others} for i in range(4)]
    lines[0] |= {"caption": "a", "captoin": "b"}
    lines[1] |= {"caption": "a", "lable": "run", "ends": 1}
    lines[2] |= {"captions": ["a"], "caption": "a", "Start": 0}
    read_manifest(write(tmp_path, *lines))
    path = tmp_path / "clips.jsonl"
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        f"{path}: {key!r} in {times} of 4 entries is kept, but means nothing here: "
        f"did you mean {meant!r}?"
        for key, times, meant in [
            ("caption", 2, "captions"),
            ("captoin", 1, "captions"),
            ("lable", 1, "label"),
            ("ends", 1, "end"),
            ("Start", 1, "start"),
        ]
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{not json", "line 2: Expecting property name"),
        ("[1]", "line 2: is list, not an object"),
        ('{"path": "a.mp4"}', "line 2: 'id' must be a text that is not empty, is None"),
        ('{"id": "b", "path": 3}', "line 2: 'path' must be a text"),
        ('{"id": "b", "path": "b", "start": "soon"}', "line 2: 'start' must be a number"),
        ('{"id": "b", "path": "b", "end": -1}', "line 2: 'end' must be a number"),
        ('{"id": "b", "path": "b", "end": NaN}', "line 2: 'end' must be a number"),
        ('{"id": "b", "path": "b", "captions": [1]}', "line 2: 'captions' must be a list"),
        (r'{"id": "b", "path": "b", "captions": ["\ud800"]}', r"line 2: '\ud800' is half"),
        (r'{"id": "b", "path": "b", "more": {"\udcff": 1}}', r"line 2: '\udcff' is half"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, reason):
    path = write(tmp_path, {"id": "a", "path": "a.mp4"}, line)
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert f"{path} {reason}" in str(caught.value)
    assert 'must be a JSON object like {"id": "a", "path": "a.mp4"}' in str(caught.value)


def test_text_that_is_not_utf8_is_named(tmp_path):
    path = tmp_path / "clips.jsonl"
    path.write_bytes(b'{"id": "a", "path": "a.mp4"}\n{"id": "\xff", "path": "b.mp4"}\n')
    with pytest.raises(ManifestError, match="line 2: 'utf-8' codec"):
        read_manifest(path)


def test_duplicate_ids_name_both_lines(tmp_path):
    path = write(
        tmp_path, {"id": "a", "path": "a.mp4"}, {"id": "b", "path": "b"}, {"id": "a", "path": "c"}
    )
    with pytest.raises(ManifestError, match="lines 1 and 3 have the same id 'a'; make ids unique"):
        read_manifest(path)


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_no_entry(tmp_path, content):
    (tmp_path / "clips.jsonl").write_text(content)
    with pytest.raises(ManifestError, match="has no entry"):
        read_manifest(tmp_path / "clips.jsonl")


def test_missing_manifest(tmp_path):
    with pytest.raises(ManifestError, match=r"none\.jsonl cannot be read: No such file"):
        read_entries(tmp_path / "none.jsonl")


def test_paths_that_leave_the_root_are_problems_of_their_entries(tmp_path):
    outside, root = tmp_path / "outside", tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    (outside / "secret.mp4").write_bytes(b"x")
    (root / "inside.mp4").write_bytes(b"x")
    (root / "link.mp4").symlink_to(outside / "secret.mp4")
    (root / "fine.mp4").symlink_to(root / "inside.mp4")
    (root / "loop.mp4").symlink_to(root / "loop.mp4")
    cases = {
        "../outside/secret.mp4": "leaves the manifest's folder",
        "sub/../../outside/secret.mp4": "leaves the manifest's folder",
        "link.mp4": "leaves the manifest's folder",
        str(outside / "secret.mp4"): None,
        "nul\0.mp4": "holds a NUL character",
        "sub/../inside.mp4": None,
        "fine.mp4": None,
        "not_there_yet.mp4": None,
    }
    lines = [{"id": str(i), "path": text} for i, text in enumerate(cases)]
    entries = read_manifest(write(root, *lines))
    for entry, (text, expected) in zip(entries, cases.items(), strict=True):
        if expected is None:
            assert entry.problem is None, text
        else:
            assert expected in entry.problem and repr(text) in entry.problem
    assert len(fingerprint(entries)) == len(cases)


def test_an_entry_that_ends_before_it_starts_is_its_own_problem(tmp_path):
    """One such among millions, as of annotations that were rounded, does not stop the others."""
    path = write(
        tmp_path,
        {"id": "a", "path": "a.mp4", "start": 3, "end": 9},
        {"id": "b", "path": "b.mp4", "start": 9, "end": 3.5},
        {"id": "c", "path": "c.mp4", "start": 3, "end": 3},
    )
    assert [entry.problem for entry in read_manifest(path)] == [
        None,
        "its 'start' 9 is not before its 'end' 3.5",
        "its 'start' 3 is not before its 'end' 3",
    ]


def test_a_path_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "lists").mkdir()
    home, plain = read_manifest(
        write(tmp_path / "lists", {"id": "a", "path": "~/a.mp4"}, {"id": "b", "path": "~b.mp4"})
    )
    assert (home.path, home.problem) == (tmp_path / "home/a.mp4", None)
    assert plain.path == tmp_path / "lists/~b.mp4"


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_a_folder_gives_its_videos(tmp_path):
    touch(tmp_path / "b.MP4", tmp_path / "sub" / "a.b.avi", tmp_path / "d.txt")
    entries = read_entries(tmp_path)
    assert [entry.id for entry in entries] == ["b", "sub/a.b"]
    assert entries[1].path == tmp_path / "sub" / "a.b.avi"


def test_images_beside_videos_are_left_out(tmp_path, caplog):
    """One that shares the name of a video, too; a folder of images alone is one of images."""
    touch(tmp_path / "a.jpg", tmp_path / "sub" / "cover.PNG", tmp_path / "x.mp4" / "in.txt")
    assert [entry.id for entry in read_entries(tmp_path)] == ["a", "sub/cover"]
    assert not caplog.records
    touch(tmp_path / "a.mp4")
    assert [entry.path.name for entry in read_entries(tmp_path)] == ["a.mp4"]
    assert f"{tmp_path}: images beside videos are left out, 2 of 3 files" in caplog.text
    assert [entry.id for entry in read_entries(tmp_path / "**" / "*.PNG")] == ["sub/cover"]


def test_hidden_files_are_no_videos_of_a_folder(tmp_path):
    """As macOS leaves on other disks, beside each file."""
    touch(tmp_path / ".x" / "._a.mp4", tmp_path / ".x" / "a.mp4", tmp_path / ".x" / ".t" / "b.mp4")
    assert [entry.id for entry in read_entries(tmp_path / ".x")] == ["a"]
    assert [entry.id for entry in read_entries(tmp_path / ".x" / "._a.mp4")] == ["._a"]


def test_a_folder_without_videos(tmp_path):
    touch(tmp_path / "notes.txt")
    with pytest.raises(ManifestError, match=r"holds no video \(\*\.mp4, .*; correct the folder"):
        read_entries(tmp_path)


def test_patterns(tmp_path):
    touch(tmp_path / "x" / "1" / "a.mp4", tmp_path / "x" / "2" / "a.mp4", tmp_path / "x" / "b.avi")
    ids = [entry.id for entry in entries_from_pattern(tmp_path / "x" / "*" / "*.mp4")]
    assert ids == ["1/a", "2/a"]
    ids = [entry.id for entry in entries_from_pattern(tmp_path / "**" / "*.*")]
    assert ids == ["x/1/a", "x/2/a", "x/b"]


def test_wildcards_match_no_hidden_files(tmp_path):
    """As `._x.mp4`, which macOS writes beside a file on a foreign disk; a quoted pattern, too."""
    touch(tmp_path / "x.mp4", tmp_path / "._x.mp4", tmp_path / "sub" / ".cache" / "y.mp4")
    for pattern, ids in {
        "*": ["x"],
        "**/*.mp4": ["x"],
        ".*.mp4": ["._x"],
        "*/.cache/*": ["sub/.cache/y"],
        "sub/.cache/*": ["y"],
    }.items():
        assert [entry.id for entry in entries_from_pattern(tmp_path / pattern)] == ids


def test_a_file_whose_name_looks_like_a_pattern(tmp_path):
    touch(tmp_path / "[a].mp4")
    assert [entry.id for entry in read_entries(tmp_path / "[a].mp4")] == ["[a]"]


def test_files_with_one_id_are_named(tmp_path):
    touch(tmp_path / "a.avi", tmp_path / "a.mp4")
    with pytest.raises(ManifestError, match=r"a\.avi and .*a\.mp4 would both have the id 'a'"):
        read_entries(tmp_path)


@pytest.mark.parametrize("pattern", ["none.mp4", "none/"])
def test_nothing_is_there(tmp_path, pattern):
    with pytest.raises(ManifestError, match=r"none.* does not exist; correct its path"):
        read_entries(f"{tmp_path}/{pattern}")


def test_a_file_that_is_no_video_by_its_name(tmp_path):
    touch(tmp_path / "README.md")
    with pytest.raises(ManifestError, match=r"README\.md is no video or image .*\*\.jsonl"):
        read_entries(tmp_path / "README.md")


@pytest.mark.parametrize("pattern", ["*.mp4", "none/*.mp4"])
def test_nothing_matches(tmp_path, pattern):
    with pytest.raises(ManifestError, match="matches no video; quote patterns"):
        read_entries(tmp_path / pattern)


def test_fingerprint_changes_with_the_entry_and_its_file(tmp_path):
    path = write(tmp_path, {"id": "a", "path": "a.mp4"})
    missing = fingerprint(read_manifest(path))
    touch(tmp_path / "a.mp4")
    there = fingerprint(read_manifest(path))
    write(tmp_path, {"id": "a", "path": "a.mp4", "captions": ["x"]})
    captioned = fingerprint(read_manifest(path))
    assert missing != there != captioned
    before = captioned[0]["modified"]
    os.utime(tmp_path / "a.mp4", ns=(0, 1))
    assert fingerprint(read_manifest(path)) != captioned
    os.utime(tmp_path / "a.mp4", ns=(0, before))
    assert fingerprint(read_manifest(path)) == captioned


def test_a_locked_folder_stops_nothing(tmp_path, monkeypatch):
    """One whose files may be listed but not looked at."""
    touch(tmp_path / "locked" / "a.mp4", tmp_path / "b.mp4")
    path = write(tmp_path, {"id": "a", "path": "locked/a.mp4"}, {"id": "b", "path": "b.mp4"})
    look = Path.stat

    def refuse(self, **options):
        if self.parent.name == "locked":
            raise PermissionError(13, "Permission denied", str(self))
        return look(self, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    assert [entry["size"] for entry in fingerprint(read_manifest(path))] == [None, 1]
    assert [entry.id for entry in read_entries(tmp_path)] == ["b", "locked/a"]


def test_a_name_longer_than_a_disk_takes_stops_nothing(tmp_path):
    [entry] = read_manifest(write(tmp_path, {"id": "a", "path": "x" * 300 + "/a.mp4"}))
    assert fingerprint([entry])[0]["size"] is None
    with pytest.raises(ManifestError, match=r"File name too long; correct its path"):
        read_entries("x" * 300)
    with pytest.raises(ManifestError, match=r"File name too long; correct its path"):
        read_entries("x" * 300 + "/*.mp4")


def test_a_file_name_that_is_not_utf8_is_a_problem_of_its_entry(tmp_path):
    touch(tmp_path / "a.mp4", tmp_path / os.fsdecode(b"b\xff.mp4"))
    fine, bad = read_entries(tmp_path)
    assert fine.problem is None
    assert bad.id == r"b\udcff" and "is not UTF-8" in bad.problem
    json.dumps(fingerprint([fine, bad]), ensure_ascii=False).encode()
