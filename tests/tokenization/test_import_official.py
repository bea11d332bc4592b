"""The released program's files -> records, and back."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.tokenization import official
from tokenization import manifest, records
from tokenization.engines.inline import InlineEngine
from tokenization.export_official import export_official
from tokenization.extract import ExtractSettings, extract
from tokenization.import_official import ImportSettings, import_official, read_entries
from tokenization.manifest import Entry
from tokenization.official_files import Pair
from tokenization.pipeline import PipelineSettings
from tokenization.splits import OutputError
from tokenization.video import VideoError

T, H, W = 6, 48, 64
SETTINGS = ImportSettings(record_size=32, shard_size=2)


def run(entries, output, settings=SETTINGS, **options):
    return import_official(entries, output, settings, engine=InlineEngine(), **options)


def released(seed: int = 0) -> official.OfficialGraph:
    """Two clips of moving bars, joined by the released program's rules."""
    masks = np.zeros((T + 1, 3, H, W), np.uint8)
    for frame in range(T + 1):
        for bar in range(3):
            masks[frame, bar, :, 20 * bar + frame + seed : 20 * bar + frame + seed + 12] = 1
    return official.build_graph([masks[:4], masks[3:6]], [0, 3, T], overlap="last")


def save(video: Path, pair: official.OfficialGraph, version: str = "") -> Pair:
    """As the released program does."""
    files = Pair.of_video(video, version)
    np.savez_compressed(files.mask, pair.ids.astype(np.uint8))
    np.savez_compressed(files.graph, tensor=pair.graph)
    return files


@pytest.fixture
def tree(clips):
    """a.mp4 with its short copy, b_short.mp4 alone, still.png, each with its pair."""
    grey = clips.grey(30, W, H)
    clips.video("a.mp4", grey)
    clips.video("a_short.mp4", grey[2::5])
    clips.video("b_short.mp4", grey[2::5])
    clips.image("still.png", W, H)
    save(clips.root / "a.mp4", released())
    save(clips.root / "b_short.mp4", released(1))
    np.savez_compressed(clips.root / "still_mask.npz", released().ids[0].astype(np.uint8))
    return clips.root


def test_a_tree_becomes_records(tree, tmp_path):
    entries = read_entries(tree)
    assert [entry.id for entry in entries] == ["a", "b", "still"]
    summary = run(entries, tmp_path / "out")
    assert (summary.videos, summary.quarantine, summary.repeated) == (3, (), 0)
    a, b, still = records.open_records(tmp_path / "out")
    assert a.trajectories.labels.shape == (T, 32, 32) and len(a.trajectories) == 3
    # The frames are those of the sampling rule: 2, 7, 12, ... at 10 a second.
    np.testing.assert_allclose(a.trajectories.frame_times, np.arange(2, 30, 5) / 10, atol=1e-3)
    np.testing.assert_allclose(a.frames.mean((1, 2, 3)), b.frames.mean((1, 2, 3)), atol=3)
    assert a.trajectories.key_frames.tolist() == [True] + [False] * (T - 1)
    assert still.trajectories.labels.shape == (1, 32, 32) and len(still.trajectories) == 3
    expected = released().ids[:, (np.arange(32) * H + H // 2) // 32]
    expected = expected[:, :, (np.arange(32) * W + W // 2) // 32]
    np.testing.assert_array_equal(a.trajectories.labels > 0, expected > 0)


def test_a_manifest_names_splits_captions_and_files(tree, tmp_path):
    (tree / "other").mkdir()
    for name in ("a_mask.npz", "a_graph.npz"):
        (tree / name).rename(tree / "other" / name)
    line = {"id": "x", "path": "a.mp4", "captions": ["bars"], "label": "move", "views": 2}
    files = {"mask": "other/a_mask.npz", "graph": str(tree / "other" / "a_graph.npz")}
    (tree / "test.jsonl").write_text(json.dumps(line | files) + "\n")
    run(read_entries(tree / "test.jsonl"), tmp_path / "out", split="test")
    (record,) = records.open_records(tmp_path / "out", "test")
    assert (record.captions, record.label, dict(record.extra)) == (("bars",), "move", {"views": 2})


def test_versions_of_the_files(tree, tmp_path):
    entries = [Entry("a", tree / "a.mp4")]
    settings = dataclasses.replace(SETTINGS, version="_v2")
    assert run(entries, tmp_path / "out", settings).bad == 1
    save(tree / "a.mp4", released(), "_v2")
    assert run(entries, tmp_path / "out", settings).videos == 1  # new files: it is tried again


def test_broken_pairs_are_quarantined_with_the_reason(tree, clips, tmp_path):
    pair = released()
    good = clips.grey(12, W, H)
    damage = {
        "missing": lambda files: files.mask.unlink(),
        "truncated": lambda files: files.mask.write_bytes(files.mask.read_bytes()[:99]),
        "pickled": lambda files: np.savez(files.graph, tensor=np.array([{}], object)),
        "named": lambda files: np.savez(files.mask, masks=pair.ids),
        "floats": lambda files: np.savez(files.graph, tensor=pair.graph / 2),
        "frames": lambda files: np.savez(files.graph, tensor=pair.graph[:, :-1]),
        "shared": lambda files: np.savez(files.graph, tensor=np.ones_like(pair.graph)),
        "wrapped": lambda files: np.savez(files.graph, tensor=pair.graph + 254),
        "lying": lambda files: np.savez(files.mask, pair.ids.transpose(0, 2, 1)),
        "flat": lambda files: np.savez(files.mask, pair.ids[0]),
    }
    for name, harm in damage.items():
        harm(save(clips.video(f"bad/{name}.mp4", good), pair))
    save(clips.data("bad/empty.mp4", b""), pair)
    entries = [Entry("a", tree / "a.mp4"), *read_entries(tree / "bad")]
    entries.append(Entry("names", tree / "a.mp4", extra={"mask": 3}))
    for name, times in {"few": [0.0], "back": [0, 1, 2, 5, 4, 6], "words": ["a"] * T}.items():
        entries.append(Entry(name, tree / "a.mp4", extra={"frame_times": times}))
    summary = run(entries, tmp_path / "out")
    assert [record.id for record in records.open_records(tmp_path / "out")] == ["a"]
    reasons = {bad.id: bad.reason for bad in summary.quarantine}
    assert reasons.keys() == {*damage, "empty", "names", "few", "back", "words"}
    for name, said in {
        "missing": "has no missing_mask.npz beside it",
        "truncated": "has a truncated_mask.npz that cannot be read",
        "pickled": "allow_pickle",
        "named": "'arr_0' of an .npz",
        "floats": "float64 in floats_graph.npz, not whole numbers",
        "frames": "the mask has 6 frames, the graph 5",
        "shared": "share id 1 in frame 0",
        "wrapped": "8 bits hold 255",
        "lying": "lies on its side",
        "flat": "must be [t, h, w] and [m, t]",
        "empty": "is empty (0 bytes)",
        "names": "has 3 as its 'mask', no path",
        "few": "no seconds of its 6 frames in order",
        "back": "no seconds of its 6 frames in order",
        "words": "no seconds of its 6 frames in order",
    }.items():
        assert said in reasons[name], (name, reasons[name])


def test_a_changed_pair_is_imported_again(tree, tmp_path):
    entries = [Entry("a", tree / "a.mp4")]
    run(entries, tmp_path / "out")
    assert run(entries, tmp_path / "out").skipped == 1
    save(tree / "a.mp4", released(2))
    assert run(entries, tmp_path / "out").skipped == 0


def test_imports_are_not_mixed_with_extractions(tree, tmp_path):
    entries = [Entry("a", tree / "a.mp4")]
    run(entries, tmp_path / "out")
    settings = ExtractSettings(PipelineSettings(frames=2), record_size=32, shard_size=2)
    with pytest.raises(OutputError, match="holds records of other settings"):
        extract(entries, tmp_path / "out", settings, split="test", engine=InlineEngine())


def test_there_and_back_again(tree, tmp_path):
    """ours -> official -> ours keeps all but what H.264 and JPEG take of the frames."""
    captions = {"a": ("one", "two"), "b": ("three",), "still": ()}
    # On the fourth of six frames, at 1.7 seconds: the copy's frames end at 1.
    boxes = [{"time": 1.7, "box": [0.1, 0.2, 0.5, 0.9], "label": "run"}]
    entries = [
        dataclasses.replace(
            entry,
            captions=captions[entry.id],
            label=entry.id,
            extra={"boxes": boxes, "views": 2} if entry.id == "a" else {},
        )
        for entry in read_entries(tree)
    ]
    run(entries, tmp_path / "out")
    assert export_official(tmp_path / "out", tmp_path / "tree", engine=InlineEngine()) == 3
    again = manifest.read_manifest(tmp_path / "tree" / "manifest.jsonl")
    run(again, tmp_path / "again")
    pairs = zip(
        records.open_records(tmp_path / "out"),
        records.open_records(tmp_path / "again"),
        strict=True,
    )
    for ours, back in pairs:
        np.testing.assert_array_equal(ours.trajectories.labels, back.trajectories.labels)
        times = [record.trajectories.frame_times for record in (ours, back)]
        np.testing.assert_array_equal(*times)
        assert dict(ours.extra) == dict(back.extra)
        if ours.boxes is None:
            assert back.boxes is None
        else:
            np.testing.assert_array_equal(ours.boxes.corners, back.boxes.corners)
            np.testing.assert_array_equal(ours.boxes.times, back.boxes.times)
            # The frame that shows the box is the same, too, not the second alone.
            shown = [np.abs(of_frames - ours.boxes.times[0]).argmin() for of_frames in times]
            assert shown == [3, 3]
        assert (ours.id, ours.captions, ours.label) == (back.id, back.captions, back.label)
        assert np.abs(ours.frames.astype(int) - back.frames).mean() < 4
    lines = json.loads((tmp_path / "tree" / "annotations.json").read_text())
    assert lines[:2] == [
        {"video": "a_short.mp4", "caption": ["one", "two"]},
        {"video": "b_short.mp4", "caption": "three"},
    ]


def test_boxes_of_a_copy_are_not_extracted_at_its_own_seconds(tree, tmp_path):
    """Its 5 frames a second are not those of the original; the times of an export are its own."""
    boxes = [{"time": 1.7, "box": [0.1, 0.2, 0.5, 0.9], "label": "run"}]
    extra = {"a": {"boxes": boxes}, "b": {"frame_times": "of a user's own"}}
    entries = [Entry(name, tree / f"{name}_short.mp4", extra=extra[name]) for name in "ab"]
    cut = PipelineSettings(frames=3, tracker="none", split="stride", clip_limit=1)
    small = ExtractSettings(cut, record_size=32)
    extract(entries, tmp_path / "out", small, engine=InlineEngine())
    export_official(tmp_path / "out", tmp_path / "tree", engine=InlineEngine())
    again = manifest.read_manifest(tmp_path / "tree" / "manifest.jsonl")
    assert [len(entry.extra["frame_times"]) for entry in again] == [3, 3]
    summary = extract(again, tmp_path / "again", small, engine=InlineEngine())
    (bad,) = summary.quarantine
    assert (bad.id, bad.remedy) == ("a", "give it to python -m tokenization.import_official")


def test_what_is_exported_is_as_the_released_loader_wants_it(tree, tmp_path):
    """Key and type of each array: it resizes masks with OpenCV, which takes no 16 bits of ids."""
    run(read_entries(tree), tmp_path / "out")
    export_official(tmp_path / "out", tmp_path / "tree", engine=InlineEngine())
    with np.load(tmp_path / "tree" / "a_mask.npz") as mask:
        assert mask.files == ["arr_0"] and mask["arr_0"].dtype == np.uint8
    with np.load(tmp_path / "tree" / "a_graph.npz") as graph:
        assert graph.files == ["tensor"] and graph["tensor"].dtype == np.int64


def test_more_than_255_ids_survive(tmp_path):
    pair = Pair.of_video(tmp_path / "a.mp4")
    ids = np.arange(300).reshape(1, 15, 20)
    graph = np.arange(1, 300)[:, None]
    pair.write(ids, graph)
    mask, back = pair.read()
    np.testing.assert_array_equal(mask, ids)
    np.testing.assert_array_equal(back, graph)


def test_an_interrupted_export_goes_on_and_others_are_refused(tree, tmp_path):
    run(read_entries(tree), tmp_path / "out")
    out = tmp_path / "tree"
    export_official(tmp_path / "out", out, engine=InlineEngine())
    kept = (out / "b_short.mp4").stat().st_mtime_ns
    (out / "a_graph.npz").unlink()
    (out / "manifest.jsonl").unlink()
    export_official(tmp_path / "out", out, engine=InlineEngine())
    assert (out / "a_graph.npz").exists() and (out / "manifest.jsonl").exists()
    assert (out / "b_short.mp4").stat().st_mtime_ns == kept
    save(tree / "a.mp4", released(2))
    run(read_entries(tree), tmp_path / "out")
    with pytest.raises(ValueError, match="choose another --output"):
        export_official(tmp_path / "out", out, engine=InlineEngine())


def test_ids_that_leave_the_folder_are_refused(tree, tmp_path):
    run([Entry("../a", tree / "a.mp4")], tmp_path / "out")
    with pytest.raises(ValueError, match=r"'\.\./a' cannot be a path below"):
        export_official(tmp_path / "out", tmp_path / "tree", engine=InlineEngine())
    assert not (tmp_path / "tree").exists()


@pytest.mark.parametrize("ids", [("x/a", "x//a"), ("a", "./a"), ("Ä", "ä"), ("é", "e\u0301")])
def test_ids_that_are_one_path_are_refused(tree, tmp_path, ids):
    """The second record would silently not be written."""
    run([Entry(name, tree / "a.mp4") for name in ids], tmp_path / "out")
    with pytest.raises(ValueError, match=r"are one path below .* make them differ"):
        export_official(tmp_path / "out", tmp_path / "tree", engine=InlineEngine())
    assert not (tmp_path / "tree").exists()


def test_a_mask_without_a_file_tells_the_remedy(tmp_path):
    with pytest.raises(VideoError, match=r"has no a_mask\.npz beside it; make it with"):
        Pair.of_video(tmp_path / "a_short.mp4").read()


@pytest.mark.parametrize("name", ["import_official", "export_official"])
def test_help_teaches(name):
    line = [sys.executable, "-m", f"tokenization.{name}", "--help"]
    done = subprocess.run(line, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python -m tokenization.{name} --" in done.stdout and "--output" in done.stdout


def test_the_commands(tree, tmp_path):
    def command(name: str, *flags: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", f"tokenization.{name}", "--workers=1", *flags]
        return subprocess.run(line, capture_output=True, text=True)

    done = command(
        "import_official", f"--input={tree}", f"--output={tmp_path}/out", "--record_size=32"
    )
    assert done.returncode == 0, done.stderr
    assert "3 videos, 13 frames" in done.stdout and "import: 100%" in done.stderr
    done = command("export_official", f"--records={tmp_path}/out", f"--output={tmp_path}/tree")
    assert done.returncode == 0, done.stderr
    assert "3 videos: " in done.stdout and "export: 100%" in done.stderr
    assert "dataset" not in done.stderr  # as TFDS says of each that it opens
    done = command("export_official", f"--records={tree}", f"--output={tmp_path}/tree")
    assert done.returncode == 2 and "error: " in done.stderr and "Traceback" not in done.stderr
