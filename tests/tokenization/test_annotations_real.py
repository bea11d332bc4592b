"""Readers on the published files, where TRAJVIT_TEST_DATA names a folder that has them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tokenization.annotations.datasets import DATASETS
from tokenization.annotations.media import Media
from tokenization.annotations.writer import Summary, write_manifest

READERS = {dataset.name: dataset.read for dataset in DATASETS}
K400 = {"labels": "label_maps/label_map_k400.txt"}
UCF = {"labels": "ucf101/classInd.txt"}


def find(name: str) -> Path:
    root = os.environ.get("TRAJVIT_TEST_DATA")
    if root is None:
        pytest.skip("TRAJVIT_TEST_DATA is not set; it names the folder of annotations/")
    path = Path(root, "annotations", name)
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return path


def convert(folder: Path, dataset: str, name: str, options: dict[str, str]) -> Summary:
    options = {key: find(o) if key == "labels" else o for key, o in options.items()}
    (folder / "media").mkdir()
    found = READERS[dataset]([find(name)], Media(folder / "media"), **options)
    return write_manifest(found, folder / "m.jsonl", keep_missing=True)


@pytest.mark.parametrize(
    ("dataset", "name", "options", "entries", "captions"),
    [
        ("activitynet", "activitynet_captions/train.json", {}, 10009, 10009),
        ("activitynet", "activitynet_captions/val_1.json", {}, 4917, 4917),
        ("activitynet", "activitynet_captions/val_1.json", {"per": "event"}, 17505, 17505),
        ("activitynet", "activitynet_captions/val_2.json", {}, 4885, 4885),
        ("msrvtt", "msrvtt/msrvtt_test.trajvit.json", {}, 1000, 1000),
        ("msrvtt", "msrvtt/msrvtt_caption_test.panda.json", {}, 2990, 59800),
        ("msvd", "msvd/msvd_caption_test.panda.json", {}, 670, 27763),
        ("charades-sta", "charades/charades_sta_test.txt", {}, 2578, 3720),
        ("didemo", "didemo/test_data.json", {"per": "moment"}, 4021, 4021),
        ("didemo", "didemo/test_data.json", {}, 1004, 1004),
        ("didemo", "didemo/val_data.json", {}, 1065, 1065),
    ],
)
def test_captions(tmp_path, dataset, name, options, entries, captions):
    summary = convert(tmp_path, dataset, name, options)
    assert (summary.entries, summary.captions, summary.bad) == (entries, captions, 0)


@pytest.mark.parametrize("saved_as", ["{}", "{stem}.mp4"])
@pytest.mark.parametrize("name", ["didemo/test_data.json", "didemo/val_data.json"])
def test_every_video_of_didemo_is_found(tmp_path, name, saved_as):
    for item in json.loads(find(name).read_text("utf-8")):
        video = item["video"]
        (tmp_path / saved_as.format(video, stem=video.split(".")[0])).touch()
    found = READERS["didemo"]([find(name)], Media(tmp_path))
    assert all(entry.path.is_file() for entry in found)


@pytest.mark.parametrize(
    ("dataset", "name", "options", "labelled", "classes"),
    [
        ("charades", "charades/charades.json", {"split": "testing"}, 1814, 157),
        ("ucf101", "ucf101/trainlist01.txt", UCF, 9537, 101),
        ("ucf101", "ucf101/testlist01.txt", UCF, 3783, 101),
        ("ucf101", "ucf101/testlist03.txt", UCF, 3696, 101),
    ],
)
def test_labels(tmp_path, dataset, name, options, labelled, classes):
    summary = convert(tmp_path, dataset, name, options)
    assert (summary.labelled, summary.classes, summary.bad) == (labelled, classes, 0)


def test_kinetics_indices_are_those_of_the_list(tmp_path):
    summary = convert(tmp_path, "kinetics", "kinetics/kinetics-400_val.csv", K400)
    assert (summary.labelled, summary.classes, summary.bad) == (19906, 400, 0)
    names = find(K400["labels"]).read_text("utf-8").splitlines()
    for line in (tmp_path / "m.jsonl").read_text("utf-8").splitlines()[::1000]:
        entry = json.loads(line)
        assert names[entry["label_index"]] == entry["label"]


def test_ava_reads_the_60_actions(tmp_path):
    (tmp_path / "a.csv").write_text("v,0902,0.1,0.1,0.5,0.5,80,1\nv,0902,0.1,0.1,0.5,0.5,2,1\n")
    labels = find("ava/ava_action_list_v2.1_for_activitynet_2018.pbtxt.txt")
    (entry,) = READERS["ava"]([tmp_path / "a.csv"], Media(tmp_path), labels=labels)
    assert [box["label"] for box in entry.extra["boxes"]] == ["watch (a person)"]
