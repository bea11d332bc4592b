"""`python -m tokenization.annotations`: what it writes, refuses and says."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tokenization import annotations, missing
from tokenization.annotations.__main__ import main
from tokenization.annotations.datasets import DATASETS
from tokenization.annotations.problems import AnnotationError
from tokenization.annotations.writer import write_manifest
from tokenization.manifest import Entry, read_manifest

PACKAGE = Path(annotations.__path__[0])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of 40 clips of MSR-VTT and their json."""
    (tmp_path / "videos").mkdir()
    for number in range(40):
        (tmp_path / f"videos/video{number}.mp4").touch()
    annotate(tmp_path, [])
    return tmp_path


def annotate(data: Path, more: list[object]) -> None:
    items = [{"video": f"video{n}.mp4", "caption": [f"clip {n}", "ü"]} for n in range(40)]
    (data / "a.json").write_text(json.dumps([*items, *more]))


def call(data: Path, *more: str, media: Path | None = None) -> int:
    return main(
        [
            "msrvtt",
            f"--annotations={data / 'a.json'}",
            f"--media={media or data / 'videos'}",
            f"--output={data / 'm.jsonl'}",
            *more,
        ]
    )


def test_writes_a_manifest_that_can_be_moved(data, capsys):
    assert call(data) == 0
    first = json.loads((data / "m.jsonl").read_text("utf-8").splitlines()[0])
    assert first == {"id": "video0", "path": "videos/video0.mp4", "captions": ["clip 0", "ü"]}
    back = read_manifest(data / "m.jsonl")
    assert len(back) == 40
    assert all(entry.problem is None and entry.path.is_file() for entry in back)
    assert "40 entries, 80 captions, 0 labelled" in capsys.readouterr().out
    assert sorted(path.name for path in data.iterdir()) == ["a.json", "m.jsonl", "videos"]


def test_missing_files_are_listed_and_left_out(data, capsys):
    for number in (3, 5):
        (data / f"videos/video{number}.mp4").unlink()
    assert call(data) == 0
    assert "2 entries miss their file (2 files)" in capsys.readouterr().out
    files = {f"video{number}": str(data / f"videos/video{number}.mp4") for number in (3, 5)}
    assert missing.read(data / "m.missing.txt") == files
    assert len(read_manifest(data / "m.jsonl")) == 38
    assert call(data, "--keep-missing") == 0
    assert len(read_manifest(data / "m.jsonl")) == 40
    for number in (3, 5):
        (data / f"videos/video{number}.mp4").touch()
    assert call(data) == 0
    assert not (data / "m.missing.txt").exists()


def test_entries_that_share_a_file_are_each_missing(tmp_path, capsys):
    """Two videos of four events each, one of which is gone: four clips are."""
    times = {"timestamps": [[i, i + 1] for i in range(4)], "sentences": list("abcd")}
    (tmp_path / "val_1.json").write_text(json.dumps({"v_one": times, "v_two": times}))
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/v_one.mp4").touch()
    given = [f"--annotations={tmp_path / 'val_1.json'}", f"--media={tmp_path / 'videos'}"]
    assert main(["activitynet", *given, f"--output={tmp_path / 'm.jsonl'}", "--per=event"]) == 0
    assert "4 entries miss their file (1 files)" in capsys.readouterr().out
    gone = str(tmp_path / "videos/v_two.mp4")
    assert missing.read(tmp_path / "m.missing.txt") == {f"v_two_{i}": gone for i in range(4)}


def test_the_list_of_missing_entries_goes_with_the_records(tmp_path):
    manifest, listed = tmp_path / "m.jsonl", tmp_path / "m.missing.txt"
    listed.write_text("a_0\tvideos/a.mp4\na_1\tvideos/a.mp4\n")
    missing.keep(missing.read_beside(manifest), tmp_path, "test")
    assert missing.read_kept(tmp_path, "test") == dict.fromkeys(("a_0", "a_1"), "videos/a.mp4")
    assert missing.read_kept(tmp_path, "train") == {}
    listed.unlink()  # as where only the manifest was copied
    missing.keep(missing.read_beside(manifest), tmp_path, "test")
    assert len(missing.read_kept(tmp_path, "test")) == 2
    odd = {"a\tb": "x\\n.mp4", "c\nd": "y.mp4"}
    missing.keep(odd, tmp_path, "test")
    assert missing.read_kept(tmp_path, "test") == odd
    listed.write_text("videos/b.mp4\n")  # of an earlier version
    assert missing.read(listed) == {"videos/b.mp4": "videos/b.mp4"}
    listed.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"m\.missing\.txt is not UTF-8 .*MANIFEST\.missing\.txt"):
        missing.read(listed)


def test_malformed_items_are_quarantined_and_too_many_are_an_error(data, capsys):
    duplicate = {"video": "video1.mp4", "caption": "again"}
    annotate(data, [{"video": "x.mp4"}, duplicate])
    assert call(data) == 0
    out = capsys.readouterr().out
    assert "1 malformed, 1 duplicates refused (4.8%)" in out
    assert f"{data / 'a.json'} item 40: has no 'caption'; each item should be like" in out
    first, second = map(json.loads, (data / "m.quarantine.jsonl").read_text().splitlines())
    assert first["file"] == str(data / "a.json")
    assert (first["where"], first["reason"]) == ("item 40", "has no 'caption'")
    assert second["reason"] == "its id is taken"
    assert read_manifest(data / "m.jsonl")[1].captions == ("clip 1", "ü")

    annotate(data, [7, "x", None])
    assert call(data) == 1
    error = capsys.readouterr().err
    assert "7.0% of the items could not be used, more than --max_bad=5.0%" in error
    assert len(read_manifest(data / "m.jsonl")) == 40
    assert call(data, "--max_bad=0.1") == 0


def test_nothing_to_write_keeps_the_old_manifest(data, capsys):
    assert call(data) == 0
    old = (data / "m.jsonl").read_bytes()
    (data / "empty").mkdir()
    assert call(data, media=data / "empty") == 2
    err = capsys.readouterr().err
    assert "none of the 40 files is there, the first would be" in err
    assert "pass --keep_missing" in err
    assert (data / "m.jsonl").read_bytes() == old
    assert len(missing.read(data / "m.missing.txt")) == 40
    assert not list(data.glob(".*"))


def test_media_elsewhere_are_refused_with_the_remedy(data, tmp_path_factory, capsys):
    other = tmp_path_factory.mktemp("other")
    assert call(data, media=other) == 2
    err = capsys.readouterr().err
    assert f"{other} does not lie below the manifest's folder {data}" in err
    assert "--absolute_paths" in err
    (other / "video0.mp4").touch()
    assert call(data, "--absolute_paths", media=other) == 0
    (entry,) = read_manifest(data / "m.jsonl")
    assert (entry.path, entry.problem) == (other / "video0.mp4", None)


def test_a_link_that_leaves_the_folder_is_quarantined(data, tmp_path_factory):
    other = tmp_path_factory.mktemp("other") / "x.mp4"
    other.touch()
    (data / "videos/video0.mp4").unlink()
    (data / "videos/video0.mp4").symlink_to(other)
    assert call(data) == 0
    (line,) = (data / "m.quarantine.jsonl").read_text().splitlines()
    assert "leaves the manifest's folder" in json.loads(line)["reason"]
    assert len(read_manifest(data / "m.jsonl")) == 39


def test_only_keeps_the_listed_ids(data, capsys):
    (data / "ids.csv").write_text("video_id\nvideo3\nvideo9\n")
    assert call(data, f"--only={data / 'ids.csv'}") == 0
    assert [entry.id for entry in read_manifest(data / "m.jsonl")] == ["video3", "video9"]
    assert "38 left out; 1 ids of --only not found" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--annotations=no.json"], "no.json cannot be read: No such file or directory"),
        (["--media=no"], "no is no folder; --media names the folder"),
        (["--output=m.json"], "should be named NAME.jsonl"),
        (["--split=test"], "a.json names no splits; leave out --split"),
    ],
)
def test_errors_are_one_line(data, capsys, arguments, message, monkeypatch):
    monkeypatch.chdir(data)
    given = {"--annotations": "a.json", "--media": "videos", "--output": "m.jsonl"}
    given |= dict(argument.split("=", 1) for argument in arguments)
    assert main(["msrvtt", *(f"{key}={value}" for key, value in given.items())]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("error: ")
    assert len(captured.err.splitlines()) == 1
    assert not (data / "m.jsonl").exists()


def test_interrupting_leaves_nothing_half_written(tmp_path):
    def found():
        yield Entry("a", tmp_path / "a.mp4")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_manifest(found(), tmp_path / "m.jsonl", keep_missing=True)
    assert not list(tmp_path.iterdir())


def test_half_a_character_does_not_reach_the_manifest(tmp_path):
    found = [Entry("a", tmp_path / "a.mp4", captions=("\ud800",)), Entry("b", tmp_path / "b.mp4")]
    summary = write_manifest(found, tmp_path / "m.jsonl", keep_missing=True)
    assert (summary.entries, summary.malformed) == (1, 1)
    assert [entry.id for entry in read_manifest(tmp_path / "m.jsonl")] == ["b"]
    with pytest.raises(AnnotationError, match="every item is malformed"):
        write_manifest(found[:1], tmp_path / "n.jsonl", keep_missing=True)


@pytest.mark.parametrize("keep_missing", [False, True])
def test_a_missing_entry_that_is_kept_is_one_item(tmp_path, keep_missing):
    """Else bad items seemed half as many, and passed --max_bad."""
    (tmp_path / "a.mp4").touch()
    names = ["a", "b", "c", "c"]
    found = [Entry(name, tmp_path / f"{name}.mp4") for name in names]
    summary = write_manifest(found, tmp_path / "m.jsonl", keep_missing=keep_missing)
    assert (summary.missing, summary.duplicates, summary.bad) == (2, 1, 0.25)


def test_help_lists_every_dataset(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    for dataset in DATASETS:
        assert f"  {dataset.name} " in text
        assert dataset.about in text


@pytest.mark.parametrize("dataset", DATASETS, ids=lambda dataset: dataset.name)
def test_help_of_a_dataset_has_an_example_that_parses(dataset, capsys, tmp_path, monkeypatch):
    with pytest.raises(SystemExit) as stopped:
        main([dataset.name, "--help"])
    assert stopped.value.code == 0
    assert f"{dataset.name} {dataset.example}" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    assert main([dataset.name, *dataset.example.split()]) == 2  # parsed, but nothing is there
    assert "is no folder" in capsys.readouterr().err


def test_the_package_runs_no_text_and_opens_no_pickle():
    """Neither eval nor exec nor pickle, and nothing outside the standard library but the command's
    progress bar."""
    used: set[str] = set()
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                used |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                used.add((node.module or "").split(".")[0])
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "__import__"), path
    assert not used & {"pickle", "marshal", "shelve"}
    assert used - set(sys.stdlib_module_names) == {"tokenization", "tqdm"}


def test_importing_readers_is_light():
    script = (
        "import sys, tokenization.annotations.datasets\n"
        "heavy = ('numpy', 'cv2', 'av', 'jax', 'torch', 'trajvit_jax')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
