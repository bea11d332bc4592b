"""The benchmarks measure what they say: metrics with known answers, clocks on every stage."""

from __future__ import annotations

import dataclasses
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest

from benchmarks import extraction, tokenization_quality
from benchmarks.parts import annotated, function_clocks
from benchmarks.parts.plain_trackers import Copied, FlowOnly
from benchmarks.parts.tracking_metrics import (
    best_cover,
    boundary_f,
    coverage,
    identity_switches,
    jaccard,
    overlaps,
    tube_ious,
)
from tokenization import pipeline
from tokenization.manifest import Entry
from tokenization.pipeline import PipelineSettings
from tokenization.protocols import Clip
from tokenization.recorder import ExtractSettings
from tokenization.records import Quarantined

# Three frames of one row: object 1 moves right by a pixel a frame, object 2 stays, then hides.
TRUTH = np.array([[[1, 1, 0, 0, 2, 2]], [[0, 1, 1, 0, 2, 2]], [[0, 0, 1, 1, 0, 0]]])


def test_overlaps_count_shared_pixels_in_each_frame():
    labels = np.array([[[1, 1, 1, 0, 2, 2]], [[0, 1, 1, 1, 2, 2]], [[3, 3, 3, 3, 3, 3]]])
    shared = overlaps(labels, TRUTH)
    assert shared.shape == (3, 3, 4)
    assert shared[0].tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]]
    assert shared[2].tolist() == [[0, 0, 0, 4], [0, 0, 0, 2], [0, 0, 0, 0]]
    assert shared.sum() == TRUTH.size


def test_tube_iou_of_the_truth_itself_is_one():
    assert tube_ious(overlaps(TRUTH, TRUTH)).tolist() == [1.0, 1.0]


def test_tube_iou_is_over_all_frames_and_of_the_best_label():
    labels = np.array([[[5, 5, 0, 0, 2, 2]], [[0, 5, 5, 0, 2, 9]], [[0, 0, 9, 9, 2, 2]]])
    # Object 1: label 5 has 4 of its 6 pixels and no other. Object 2: label 2 has 3 of 4, and 2.
    assert tube_ious(overlaps(labels, TRUTH)).tolist() == pytest.approx([4 / 6, 3 / 6])


def test_tube_iou_without_labels_is_zero():
    shared = overlaps(np.zeros_like(TRUTH), TRUTH)
    assert tube_ious(shared).tolist() == [0.0, 0.0]


def test_identity_switches_are_changes_of_the_best_label():
    steady = overlaps(TRUTH, TRUTH)
    assert identity_switches(steady).tolist() == [0, 0]
    labels = np.array([[[5, 5, 0, 0, 2, 2]], [[0, 7, 7, 0, 2, 2]], [[0, 0, 5, 5, 0, 0]]])
    assert identity_switches(overlaps(labels, TRUTH)).tolist() == [2, 0]


def test_a_hidden_object_may_keep_or_change_its_label():
    truth = np.array([[[1, 1]], [[0, 0]], [[1, 1]]])
    kept = np.array([[[4, 4]], [[6, 6]], [[4, 4]]])
    changed = np.array([[[4, 4]], [[6, 6]], [[6, 6]]])
    assert identity_switches(overlaps(kept, truth)).tolist() == [0]
    assert identity_switches(overlaps(changed, truth)).tolist() == [1]


def test_losing_an_object_is_a_switch():
    labels = np.array([[[1, 1, 0, 0, 2, 2]], [[0, 0, 0, 0, 2, 2]], [[0, 0, 1, 1, 0, 0]]])
    assert identity_switches(overlaps(labels, TRUTH)).tolist() == [2, 0]


def test_coverage_is_that_of_the_worst_frame():
    labels = np.array([[[1, 1, 1, 1]], [[1, 0, 0, 2]], [[1, 1, 0, 2]]])
    assert coverage(labels) == 0.5


def test_jaccard_is_a_mean_over_frames_after_the_first():
    truth = np.array([[[1, 1, 0, 0]], [[1, 1, 0, 0]], [[0, 0, 0, 0]], [[1, 1, 0, 0]]], bool)
    found = np.array([[[0, 0, 0, 1]], [[0, 1, 1, 0]], [[0, 0, 0, 0]], [[0, 0, 1, 1]]], bool)
    assert jaccard(found, truth) == pytest.approx((1 / 3 + 1 + 0) / 3)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"iou": 0.69}, False),
        ({"switches": 1.0}, False),
        ({"trajectories": 201}, False),
        ({"coverage": 0.95}, False),
        ({"clips": 29, "iou": 0.1}, None),
    ],
)
def test_the_verdict_on_the_world(changes: dict[str, float], expected: bool | None):
    good = {"clips": 30, "iou": 0.7, "switches": 0.9, "trajectories": 200, "coverage": 0.96}
    assert tokenization_quality.verdict({**good, **changes}) is expected


@pytest.mark.parametrize(
    ("changes", "fails"),
    [
        ({}, None),
        ({"j": 0.4}, "j"),
        ({"union": 0.6}, "union"),
        ({"trajectories": 201}, "trajectories"),
        ({"seconds": 0.6}, "frames_a_second"),
    ],
)
def test_the_verdict_on_annotated_sequences(changes: dict[str, float], fails: str | None):
    good = tokenization_quality.Row(j=0.5, f=0.5, seconds=0.4, union=0.7, trajectories=200)
    changed = dataclasses.replace(good, **changes)  # type: ignore[arg-type]
    holds = tokenization_quality.davis_verdict([changed] * 12)
    assert holds is not None
    assert {name for name, held in holds.items() if not held} == ({fails} if fails else set())
    assert tokenization_quality.davis_verdict([changed] * 11) is None


def test_two_lost_sequences_are_allowed():
    rows = [
        tokenization_quality.Row(j=j, f=0.5, seconds=0.4, union=0.7, trajectories=9)
        for j in (0.1, 0.1, *(0.9,) * 10)
    ]
    holds = tokenization_quality.davis_verdict(rows)
    assert holds is not None and holds["low"] and holds["j"]
    rows[2] = dataclasses.replace(rows[2], j=0.1)
    holds = tokenization_quality.davis_verdict(rows)
    assert holds is not None and holds["j"] and not holds["low"]


@pytest.fixture
def settings() -> ExtractSettings:
    return ExtractSettings(PipelineSettings(frames=4, max_side=64), record_size=32)


@pytest.fixture
def clip(tmp_path: Path) -> Entry:
    """A cut, by a change of colours, in the middle of eight frames."""
    path = tmp_path / "videos" / "clip.mp4"
    path.parent.mkdir()
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index in range(8):
            image = rng.integers(0, 60, (48, 64, 3), dtype=np.uint8)
            image[10:30, 5 * index // 2 : 5 * index // 2 + 20] = (200, 40, 40)
            image[..., 2 * (index > 3)] //= 4
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode(None))
    return Entry("clip", path)


def test_every_stage_of_the_extraction_is_timed(clip: Entry, settings: ExtractSettings):
    tokenizer = pipeline.build(settings.pipeline)
    measured = extraction.in_one_process([clip], settings, tokenizer)
    hit = {stage for stage, seconds in measured.stages.items() if seconds > 0}
    assert hit == set(extraction.stages_of(tokenizer)) - {"linking"}
    assert measured.frames == 4 and measured.gpu_bytes is None
    rows = measured.rows()
    assert rows["linking"] == 0
    assert min(rows.values()) >= 0
    assert sum(rows.values()) == pytest.approx(measured.seconds)


def test_the_link_path_is_timed(clip: Entry, settings: ExtractSettings):
    measured = extraction.link_path([clip], settings, pipeline.build(settings.pipeline))
    assert measured.frames == 4
    assert 0 < measured.stages["linking"] < measured.seconds


def test_clocks_are_taken_off_again():
    stages = extraction.stages_of(pipeline.build())
    before = [getattr(*place) for places in stages.values() for place in places]
    with function_clocks.clocks(stages):
        assert before != [getattr(*place) for places in stages.values() for place in places]
    assert before == [getattr(*place) for places in stages.values() for place in places]


def test_threads_that_work_at_once_share_the_time():
    """Their seconds add up to what has passed, not to several times as much."""

    class Work:
        def decode(self):
            together.wait(30)
            time.sleep(0.05)
            self.write()

        def write(self):
            time.sleep(0.05)

    together, work = threading.Barrier(4), Work()
    stages = {"decoding": ((Work, "decode"),), "writing": ((Work, "write"),)}
    with function_clocks.clocks(stages) as s:
        begin = time.perf_counter()
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda _: work.decode(), range(4)))
        passed = time.perf_counter() - begin
    assert 0.09 < s["decoding"] <= passed, "one thread is in all the time"
    assert 0.03 < s["writing"] < s["decoding"]


def test_the_most_memory_is_that_of_all_parts(monkeypatch: pytest.MonkeyPatch):
    """The product starts PyTorch's count anew for each chunk."""

    class Cuda:
        peak = 9

        def is_initialized(self):
            return True

        def max_memory_allocated(self, device=None):
            return self.peak

        def reset_peak_memory_stats(self, device=None):
            self.peak = 1

    cuda = Cuda()
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    with function_clocks.gpu_memory() as most:
        for cuda.peak in (5, 7, 3):
            cuda.reset_peak_memory_stats("cuda:0")
    assert most == [7]


@pytest.mark.parametrize(("speed", "code"), [(5.0, 0), (4.99, 1)])
def test_the_exit_code_tells_whether_the_bound_holds(
    speed: float,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    seen: list[list[str]] = []

    def measure(
        entries: list[Entry], settings: ExtractSettings, tokenizer: pipeline.Pipeline
    ) -> extraction.Measured:
        seen.append([entry.id for entry in entries])
        stages = dict.fromkeys(extraction.stages_of(tokenizer), 0.5)
        stages["tracking"] = 2.0
        unread = (Quarantined("b", str(tmp_path / "b.mp4"), "it is empty", "none"),)
        return extraction.Measured(16, 8.0, stages, unread if len(entries) > 1 else ())

    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # or it would be set for all tests
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setattr(extraction, "in_one_process", measure)
    monkeypatch.setattr(extraction, "link_path", measure)
    monkeypatch.setattr(extraction, "in_processes", lambda *_: speed)
    report = tmp_path / "report.json"
    arguments = [f"--input={tmp_path}/*.mp4", f"--json={report}"]
    assert extraction.main(arguments) == code
    assert seen == [["a"], ["a", "b", "c"], ["a", "c"]]
    printed = capsys.readouterr().out
    assert ("DOES NOT HOLD" in printed) == bool(code)
    assert "b.mp4: it is empty" in printed
    assert json.loads(report.read_text())["bound_holds"] is (code == 0)
    seen.clear()
    extraction.main([*arguments, "--quick"])
    assert seen[1] == ["a", "b"]
    assert "--quick: the first 2 of 3 videos" in capsys.readouterr().out


@pytest.mark.parametrize(("clips", "iou", "code"), [(30, 0.8, 0), (30, 0.1, 1), (6, 0.1, 0)])
def test_few_clips_give_no_verdict(
    clips: int,
    iou: float,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    world = {"clips": clips, "iou": iou, "switches": 0.5, "trajectories": 9, "coverage": 1.0}
    monkeypatch.setattr(tokenization_quality, "measure_world", lambda *_: world)
    monkeypatch.delenv("TRAJVIT_TEST_DATA", raising=False)
    assert tokenization_quality.main([]) == code
    assert ("it needs the full run" in capsys.readouterr().out) == (clips < 30)


def disc(y: int, x: int, radius: int = 10, side: int = 64) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def test_boundary_f_is_one_within_the_tolerance_and_falls_beyond():
    truth = np.stack([disc(30, 30)] * 2)
    near, far = (np.stack([disc(30, 30), disc(30, x)]) for x in (31, 55))
    assert boundary_f(truth, truth) == boundary_f(near, truth) == 1.0
    assert boundary_f(far, truth) < 0.1
    nothing = np.zeros_like(truth)
    assert boundary_f(nothing, nothing) == 1.0
    assert boundary_f(nothing, truth) == 0.0


def test_boundary_f_is_the_harmonic_mean_of_precision_and_recall():
    truth = np.stack([disc(16, 16, 6) | disc(48, 48, 6)] * 2)
    found = np.stack([disc(16, 16, 6)] * 2)
    assert boundary_f(found, truth) == pytest.approx(2 * 1 * 0.5 / 1.5, abs=0.01)


def test_the_best_cover_joins_what_lies_in_the_object():
    # Of ten pixels, the object has the first six; labels 1 and 2 lie in it, 3 only partly.
    truth = np.array([[[1, 1, 1, 1, 1, 1, 0, 0, 0, 0]]] * 4)
    labels = np.array([[[1, 1, 1, 2, 2, 3, 3, 3, 4, 4]]] * 4)
    cover = best_cover(overlaps(labels, truth), 1)
    assert set(cover.labels) == {1, 2}
    assert cover.union == pytest.approx(5 / 6) and cover.single == pytest.approx(3 / 6)
    assert cover.life == 4


def test_a_cover_is_of_trajectories_that_live():
    truth = np.ones((4, 1, 4), int)
    labels = np.array([[[frame, 9, 9, frame]] for frame in range(1, 5)])
    cover = best_cover(overlaps(labels, truth), 1)
    # Label 9 lives through all frames, the others through one each: one of them may join it.
    assert cover.labels[0] == 9 and len(cover.labels) == 2
    assert cover.union == pytest.approx((4 + 3 * 2) / 16)
    short = np.arange(1, 5).repeat(4).reshape(4, 1, 4)
    assert best_cover(overlaps(short, truth), 1).labels == ()


def test_a_cover_has_eight_trajectories_at_most():
    labels = np.arange(1, 13).reshape(1, 1, 12)
    cover = best_cover(overlaps(labels, np.ones_like(labels)), 1)
    assert len(cover.labels) == 8 and cover.union == pytest.approx(8 / 12)


def test_plain_trackers_leave_a_mask_or_carry_it():
    rng = np.random.default_rng(0)
    ground = np.repeat(np.repeat(rng.integers(40, 220, (16, 24, 3)), 6, 0), 6, 1).astype(np.uint8)
    rgb = np.stack([ground[:, 6 * t : 6 * t + 96] for t in range(5)])
    given = np.where(disc(48, 60, 16, 96), 1, 2).astype(np.int32)
    moved = np.where(disc(48, 60 - 24, 16, 96), 1, 2)
    clips = [Clip(rgb, {0: given}), Clip(rgb[[0, 4]], {0: given}, (rgb[1:4],))]
    for clip, labels in zip(clips, FlowOnly().track(clips), strict=True):
        assert labels.shape == clip.frames.shape[:3]
        assert ((labels[-1] == 1) & (moved == 1)).sum() > 0.8 * (moved == 1).sum()
    assert (Copied().track(clips)[0] == given).all()


@pytest.fixture
def sequences(tmp_path: Path) -> Path:
    """Two objects that move, in the layout of NAME/frames and NAME/masks."""
    rng = np.random.default_rng(0)
    ground = rng.integers(90, 120, (64, 64, 3), dtype=np.uint8)
    for name in ("one", "two"):
        for kind in ("frames", "masks"):
            (tmp_path / name / kind).mkdir(parents=True)
        for t in range(6):
            image, mask = ground.copy(), np.zeros((64, 64, 3), np.uint8)
            for at, colour in ((14 + 3 * t, (200, 40, 40)), (48, (40, 60, 200))):
                image[disc(at, 30)] = colour
                mask[disc(at, 30)] = colour
            for kind, pixels in (("frames", image), ("masks", mask)):
                cv2.imwrite(str(tmp_path / name / kind / f"{t:05}.png"), pixels[..., ::-1])
    return tmp_path


def test_sequences_are_read_with_what_lies_between(sequences: Path):
    found = annotated.find_sequences(sequences)
    assert [sequence.name for sequence in found] == ["one", "two"]
    frames, objects = annotated.read_sequence(found[0], frames=3, between=1, max_side=32)
    assert frames.rgb.shape == (3, 32, 32, 3) and objects.shape == (3, 32, 32)
    assert [len(gap) for gap in frames.between] == [1, 1]
    assert np.unique(objects).tolist() == [0, 1, 2]
    areas = [np.bincount(frame.ravel()) for frame in objects]
    assert max(area[1] for area in areas) < 1.2 * min(area[1] for area in areas)


def test_sequences_of_the_davis_layout_are_found(sequences: Path, tmp_path: Path):
    for kind, name in (("frames", "JPEGImages"), ("masks", "Annotations")):
        (tmp_path / "davis" / name).mkdir(parents=True)
        target = tmp_path / "davis" / name / "480p" / "one"
        target.parent.mkdir()
        (sequences / "one" / kind).rename(target)
    assert [s.name for s in annotated.find_sequences(tmp_path / "davis")] == ["one"]


def test_a_missing_mask_is_named(sequences: Path):
    (sequences / "two" / "masks" / "00003.png").unlink()
    with pytest.raises(ValueError, match=r"two has 6 frames and 5 masks"):
        annotated.find_sequences(sequences)
    with pytest.raises(ValueError, match=r"no annotated sequences"):
        annotated.find_sequences(sequences / "one" / "frames")


def test_broken_bounds_of_sequences_end_with_code_1(
    sequences: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(tokenization_quality, "ENOUGH_SEQUENCES", 2)
    arguments = ["--no_world", f"--davis={sequences}"]
    arguments.append("--tokenizer=configs/tokenization/classical.py:frames=4")
    easy = dict.fromkeys(tokenization_quality.DAVIS_BOUNDS, 0.0) | {"low": 2, "trajectories": 200}
    monkeypatch.setattr(tokenization_quality, "DAVIS_BOUNDS", easy)
    assert tokenization_quality.main(arguments) == 0
    monkeypatch.setattr(tokenization_quality, "DAVIS_BOUNDS", {**easy, "union": 1.1})
    assert tokenization_quality.main(arguments) == 1
    assert "FAILS" in capsys.readouterr().out


def test_variants_of_one_pipeline_have_rows_of_their_own(
    sequences: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    configs = [f"configs/tokenization/classical.py:frames={n},split=keyframes" for n in (3, 4)]
    report, sheets = tmp_path / "report.json", tmp_path / "sheets"
    arguments = ["--no_world", f"--davis={sequences}", "--sequences=two", f"--json={report}"]
    arguments += [f"--sheets={sheets}", *(f"--tokenizer={one}" for one in configs)]
    assert tokenization_quality.main(arguments) == 0
    rows = json.loads(report.read_text())["davis"]
    assert set(rows) == {"mask copied", "flow only", *configs}
    assert len(list(sheets.iterdir())) == 2
    assert all(one in capsys.readouterr().out for one in configs[:1])


def test_segmentation_only_follows_no_mask(sequences: Path, tmp_path: Path):
    own = tmp_path / "none.py"
    own.write_text(
        "from trajvit_jax import config\n"
        "def get_config(arg=None):\n"
        "    chosen = 'frames=3,split=stride,limit=1'\n"
        "    made = config.load(f'configs/tokenization/classical.py:{chosen}')\n"
        "    made.pipeline.tracker = 'none'\n"
        "    return made\n"
    )
    report = tmp_path / "report.json"
    arguments = ["--no_world", f"--davis={sequences}", "--sequences=two", f"--tokenizer={own}"]
    assert tokenization_quality.main([*arguments, f"--json={report}"]) == 0
    row = json.loads(report.read_text())["davis"]["classical + none"]["two"]
    assert row["j"] is None and row["union"] is not None


def test_all_rows_are_measured_and_shown(
    sequences: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    report, sheets = tmp_path / "report.json", tmp_path / "sheets"
    arguments = ["--no_world", f"--davis={sequences}", "--sequences=two"]
    assert tokenization_quality.main([*arguments, f"--json={report}", f"--sheets={sheets}"]) == 0
    rows = json.loads(report.read_text())["davis"]
    assert set(rows) == {"mask copied", "flow only", "classical + flow"}
    ours = rows["classical + flow"]["two"]
    assert ours["j"] > rows["mask copied"]["two"]["j"]
    assert ours["coverage"] == 1.0 and ours["union"] >= ours["single"] > 0.5
    assert rows["flow only"]["two"]["union"] is None
    printed = capsys.readouterr().out
    assert "mask copied" in printed and "J under 0.2: 0 of 1" in printed
    assert [path.name for path in sheets.iterdir()] == ["classical+flow-two.png"]
    assert "no verdict on 1 sequences" in printed
    with pytest.raises(ValueError, match=r"--sequences: .* has no three"):
        tokenization_quality.main(["--no_world", f"--davis={sequences}", "--sequences=three"])
