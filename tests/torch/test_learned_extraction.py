"""The paper's extraction, from a video file to records, with random weights at a reduced size."""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from benchmarks import extraction
from tests.tokenization.extraction import Grid
from tokenization import backends, pipeline, weights
from tokenization import extract as extract_module
from tokenization.engines.inline import InlineEngine
from tokenization.engines.local import LocalEngine
from tokenization.learned import (
    DeviceSettings,
    DirectSamSettings,
    LearnedSettings,
    Sam2Settings,
)
from tokenization.manifest import read_entries
from tokenization.pipeline import PipelineSettings
from tokenization.recorder import ExtractSettings
from tokenization.records import open_records
from tokenization.trajectories import VideoInfo
from tokenization.video import Frames
from trajvit_jax import config

pytestmark = pytest.mark.torch

ROOT = Path(__file__).parents[2]
SMALL = "frames=6,split=stride,limit=3,resolution=128,directsam=b0,sam2=tiny"
RUNNING = DeviceSettings(device="cpu", precision="float32")


def moving(frames: int, *, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (12, 16, 3)).repeat(8, 0).repeat(8, 1)
    return np.stack([np.roll(noise, 3 * i, 1) for i in range(frames)]).astype(np.uint8)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv420p"
        for frame in moving(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def folder(torch, transformers, randomize, tmp_path_factory) -> Path:
    """Weights in the published formats, random ones by which frames have parts, seen throughout."""
    pytest.importorskip("sam2", reason="sam2 is not installed: `make sam2`")
    import safetensors.torch

    from tokenization.devices import Device
    from tokenization.segmenters import directsam
    from tokenization.trackers import sam2

    device = Device(RUNNING)
    settings = DirectSamSettings("b0", resolution=128)
    segmenter = randomize(directsam.build_model(settings, device, None))
    finder = directsam.DirectSam(segmenter, settings, device, image_batch=1)
    boundaries = finder.boundaries(moving(1))
    half_inside = np.quantile(np.log(boundaries / (1 - boundaries)), 0.5) - np.log(0.2 / 0.8)
    segmenter.decode_head.classifier.bias.data -= float(half_inside)
    tracker = randomize(sam2.build_model(Sam2Settings("tiny", 128), device, None))
    tracker.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.data.fill_(100)

    folder = tmp_path_factory.mktemp("weights")
    (folder / weights.DIRECTSAM.name).parent.mkdir()
    safetensors.torch.save_file(segmenter.state_dict(), folder / weights.DIRECTSAM.name)
    torch.save({"model": tracker.state_dict()}, folder / weights.SAM2["tiny"].name)
    return folder


def extract(video: Path, output: Path, *flags: str, config: str = f"paper.py:{SMALL}"):
    command = [sys.executable, "-m", "tokenization.extract", f"--input={video}"]
    command += [f"--output={output}", f"--config={ROOT}/configs/tokenization/{config}"]
    return subprocess.run(
        [*command, "--engine=inline", *flags], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_from_a_video_to_records(video, folder, tmp_path):
    done = extract(video, tmp_path / "records", f"--weights={folder}")
    assert done.returncode == 0, done.stderr
    (record,) = open_records(tmp_path / "records")
    trajectories = record.trajectories
    assert trajectories.labels.shape == (6, 256, 256)
    assert len(trajectories) > 5
    assert np.flatnonzero(trajectories.key_frames).tolist() == [0, 3]
    assert trajectories.presence().sum(1).max() > 1
    assert (trajectories.made_by["segmenter"], trajectories.made_by["tracker"]) == (
        "directsam",
        "sam2",
    )
    sums = dict(trajectories.made_by["settings"]["learned"]["sums"])
    names = [weights.DIRECTSAM.name, weights.SAM2["tiny"].name]
    assert sums == {name: weights.sha256(folder / name) for name in names}


def test_without_weights_or_network_the_command_says_what_goes_where(video, tmp_path, monkeypatch):
    """And before any video is looked at."""
    monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    done = extract(video, tmp_path / "records")
    assert done.returncode == 1
    assert "cannot download https://huggingface.co/chendelong/DirectSAM" in done.stderr
    assert f"{tmp_path}/cache/DirectSAM-1800px-0424/model.safetensors" in done.stderr
    assert "also needed, and not there: https://dl.fbaipublicfiles.com/" in done.stderr
    assert f"(at {tmp_path}/cache/sam2.1_hiera_tiny.pt)" in done.stderr
    assert not (tmp_path / "records").exists()


def test_a_file_that_holds_no_weights_is_told_before_workers_start(torch, tmp_path):
    path = tmp_path / "sam2.1_hiera_tiny.pt"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1")
    settings = LearnedSettings(sam2=Sam2Settings("tiny"), running=RUNNING)
    with pytest.raises(weights.WeightsError, match=r"tiny\.pt is no PyTorch file.*version https"):
        backends.prepare([backends.TRACKERS["sam2"]], settings, str(tmp_path))


def frames_of(rgb: np.ndarray) -> Frames:
    times = np.arange(len(rgb))
    info = VideoInfo("v", rgb.shape[2], rgb.shape[1], 1.0, float(len(rgb)))
    return Frames(rgb, times.astype(np.float32), times, info)


def test_videos_together_and_alone(folder):
    """Clips of several videos go through the models together; other sizes do no harm."""
    read = config.load(f"{ROOT}/configs/tokenization/paper.py:{SMALL}")
    settings = config.to_settings(ExtractSettings, read).pipeline
    tokenizer = pipeline.build(settings, weights=str(folder))
    videos = [moving(5), np.ascontiguousarray(moving(4, seed=1)[:, :64])]
    together = tokenizer.tokenize_batch([frames_of(rgb) for rgb in videos])
    for rgb, found in zip(videos, together, strict=True):
        alone = tokenizer.tokenize(frames_of(rgb))
        assert found.made_by == alone.made_by
        assert found.labels.shape == rgb.shape[:3]
        assert (found.labels == alone.labels).mean() > 0.99


def test_weights_other_than_those_of_the_dataset_are_refused(torch, tmp_path):
    path = tmp_path / "sam2.1_hiera_tiny.pt"
    torch.save({"model": {"some": torch.zeros(1)}}, path)
    backend = backends.TRACKERS["sam2"]
    settings = LearnedSettings(sam2=Sam2Settings("tiny"), running=RUNNING)
    noted = backends.prepare([backend], settings, str(tmp_path))
    assert noted.sums == ((path.name, weights.sha256(path)),)
    path.write_bytes(b"other weights")
    with pytest.raises(weights.WeightsError, match="not the file that this dataset is made with"):
        backends.make(backend, noted, str(tmp_path))


def test_the_precision_is_noted_and_what_changes_nothing_is_not(torch, monkeypatch):
    """Or float32 and bfloat16 records could share a dataset, and less at once could not go on."""
    sizes = DeviceSettings(image_batch=2, objects=3, frames_held=9)
    one, other = (
        pipeline.resolve(PipelineSettings(tracker="sam2", learned=LearnedSettings(running=running)))
        for running in (DeviceSettings("cpu"), sizes)
    )
    assert pipeline.noted(one) == pipeline.noted(other)
    assert pipeline.noted(one)["learned"]["running"] == {"precision": "float32"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    on_gpu = pipeline.resolve(PipelineSettings(tracker="sam2"))
    assert pipeline.noted(on_gpu)["learned"]["running"] == {"precision": "bfloat16"}
    embedded = PipelineSettings()
    assert pipeline.resolve(embedded) is embedded
    assert pipeline.noted(embedded)["learned"]["running"]["precision"] == "auto"


def test_less_at_once_goes_on_with_the_same_records(video, folder, tmp_path):
    out = tmp_path / "records"
    read = config.load(f"{ROOT}/configs/tokenization/paper.py:{SMALL}")
    settings = config.to_settings(ExtractSettings, read)
    chosen = settings.pipeline

    def run(running: DeviceSettings):
        learned = dataclasses.replace(chosen.learned, running=running)
        return extract_module.extract(
            read_entries(video),
            out,
            dataclasses.replace(settings, pipeline=dataclasses.replace(chosen, learned=learned)),
            engine=InlineEngine(),
            weights=str(folder),
        )

    assert run(DeviceSettings()).videos == 1
    assert run(DeviceSettings("cpu", image_batch=1, objects=2)).skipped == 1
    with pytest.raises(extract_module.OutputError, match="precision: 'float32', now 'bfloat16'"):
        run(DeviceSettings("cpu", precision="bfloat16"))
    (record,) = open_records(out)
    noted = record.trajectories.made_by["settings"]["learned"]
    assert noted["running"] == {"precision": "float32"}
    assert noted["sums"], "from Python, too, weights are noted"


def test_the_benchmark_times_networks(torch, transformers, video, tmp_path, monkeypatch, capsys):
    """One process; the second way to time them starts two more."""
    pytest.importorskip("sam2", reason="sam2 is not installed: `make sam2`")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(extraction, "in_processes", lambda *_: 1.0)
    report = tmp_path / "report.json"
    chosen = [f"--config={ROOT}/configs/tokenization/paper.py:{SMALL}", f"--input={video}"]
    assert extraction.main([*chosen, "--weights=random", f"--json={report}"]) == 0
    told = json.loads(report.read_text())
    times = told["ms_a_frame"]
    assert min(times[stage] for stage in ("segmentation", "tracking", "linking")) > 0
    assert not {"optical flow", "labels"} & times.keys()
    assert (told["bound_holds"], told["gpu_bytes"]) == (None, None)
    assert "bound" not in capsys.readouterr().out, "it is that of the embedded default"
    with pytest.raises(weights.WeightsError, match="nowhere do not exist"):
        extraction.main([*chosen, f"--weights={tmp_path}/nowhere"])


def build_counting_threads(path: Path, settings: PipelineSettings) -> pipeline.Pipeline:
    import torch

    built = pipeline.build(settings, weights=weights.RANDOM)
    path.write_text(str(torch.get_num_threads()))
    return built


def test_a_process_with_networks_on_the_cpu_uses_one_thread(
    torch, transformers, video, tmp_path, monkeypatch
):
    """With random weights, in a process of its own; PyTorch would take all cores, in each."""
    pytest.importorskip("sam2", reason="sam2 is not installed: `make sam2`")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    settings = config.to_settings(
        ExtractSettings, config.load(f"{ROOT}/configs/tokenization/paper.py:{SMALL}")
    )
    summary = extract_module.extract(
        read_entries(video),
        tmp_path / "records",
        settings,
        engine=LocalEngine(1),
        build=functools.partial(build_counting_threads, tmp_path / "threads"),
    )
    assert (summary.videos, summary.bad) == (1, 0)
    assert (tmp_path / "threads").read_text() == "1"
    (record,) = open_records(tmp_path / "records")
    assert record.trajectories.made_by["tracker"] == "sam2"


@pytest.mark.parametrize(("segmenter", "gpus"), [("directsam", ("4", "7")), ("classical", ())])
def test_from_python_networks_get_a_process_a_gpu(
    torch, video, tmp_path, monkeypatch, segmenter, gpus
):
    """As from the command line; all processes would share the first one otherwise."""
    asked = []

    def engine(*, gpus):
        asked.append(gpus)
        return InlineEngine()

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.setattr(extract_module, "LocalEngine", engine)
    settings = ExtractSettings(PipelineSettings(segmenter=segmenter), record_size=32)
    extract_module.extract(read_entries(video), tmp_path / "records", settings, build=Grid)
    assert asked == [gpus]


def test_a_missing_package_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "sam2.build_sam", None)
    monkeypatch.delitem(sys.modules, "tokenization.trackers.sam2", raising=False)
    settings = PipelineSettings(tracker="sam2")
    with pytest.raises(backends.MissingBackend, match=r"package 'sam2\..*make sam2"):
        pipeline.build(settings, weights=weights.RANDOM)
