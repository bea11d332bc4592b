"""Readers of labelled datasets, on small files in the published schemas."""

from __future__ import annotations

import pytest

from tokenization.annotations.problems import AnnotationError, Malformed
from tokenization.manifest import Entry
from tokenization.recorder import read_boxes


def reasons(found: list[Entry | Malformed]) -> list[str]:
    return [item.reason for item in found if isinstance(item, Malformed)]


def test_charades_csv_has_captions_and_actions(folder):
    header = (
        "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length"
    )
    good = '46GP8,HR43,Kitchen,6,7,Yes,A person cooks.,food,"Cooking.;  Eating, too. ",'
    file = folder.put(
        "c.csv",
        f"{header}\n{good}c092 11.90 21.20;c001 0.00 12.60;c092 1.00 2.00,24.83\n"
        "AAAAA,s,r,6,7,Yes,,,,,10.0\nBBBBB,s,r,6,7,Yes,,,x,c92 1 2,10.0\n",
    )
    labels = folder.put("classes.txt", "c001 Putting clothes\nc092 Watching a window\n")
    found = folder.read("charades", file, labels=labels)
    first, empty = (item for item in found if isinstance(item, Entry))
    assert first.captions == ("Cooking.", "Eating, too.")
    assert first.extra["label_indices"] == [1, 92]
    assert first.extra["labels"] == ["Putting clothes", "Watching a window"]
    assert first.extra["actions"][0] == {"label_index": 92, "start": 11.9, "end": 21.2}
    assert first.extra["script"] == "A person cooks."
    assert (empty.captions, empty.extra["actions"]) == ((), [])
    assert reasons(found) == ["the action 'c92 1 2' is not like 'c092 11.90 21.20'"]


def test_charades_json(folder):
    videos = {
        "7UPGT": {"subset": "training", "duration": 23.2, "actions": [[149, 16.0, 22.2]]},
        "S9KOH": {"subset": "testing", "duration": 8.0, "actions": []},
    }
    file = folder.put("charades.json", videos)
    assert list(folder.entries("charades", file, split="testing")) == ["S9KOH"]
    assert folder.entries("charades", file)["7UPGT"].extra["label_indices"] == [149]


def test_kinetics_finds_clips_in_usual_folders(folder):
    rows = "".join(
        f"{label},{name},{start},{start + 10},{split}\n"
        for label, name, start, split in [
            ("air drumming", "a-_1", 5, "val"),
            ("air drumming", "b", 417, "val"),
            ("abseiling", "c", 0, "val"),
            ("abseiling", "d", 7, "test"),
        ]
    )
    file = folder.put("k.csv", "label,youtube_id,time_start,time_end,split\n" + rows)
    labels = folder.put("map.txt", "abseiling\nair drumming\n")
    folder.put("media/air_drumming/a-_1_000005_000015.mp4")
    folder.put("media/val/air drumming/b_000417_000427.mp4")
    folder.put("media/c.mkv")
    found = folder.entries("kinetics", file, labels=labels, split="val")
    a, b, c = found.values()
    assert [e.path.relative_to(folder / "media").parts[0] for e in (a, b, c)] == [
        "air_drumming",
        "val",
        "c.mkv",
    ]
    assert (a.id, a.label, a.extra) == (
        "a-_1_000005_000015",
        "air drumming",
        {"split": "val", "label_index": 1},
    )
    assert (a.start, b.start, (c.start, c.end)) == (None, None, (0.0, 10.0))
    assert "label_index" not in folder.entries("kinetics", file)["d_000007_000017"].extra


def test_kinetics_names_bad_rows(folder):
    rows = "running,a,5,15,val\nabseiling,b,15,5,val\nabseiling,,1,2,val\nabseiling,c\n"
    file = folder.put("k.csv", "label,youtube_id,time_start,time_end,split\n" + rows)
    labels = folder.put("map.txt", "abseiling\n")
    found = folder.read("kinetics", file, labels=labels)
    assert [item.where for item in found] == ["line 2", "line 3", "line 4", "line 5"]
    assert reasons(found) == [
        f"the class 'running' is not in {labels}",
        "start '15' and end '5' must be 0 <= start < end",
        "'youtube_id' must be a text that is not empty, is ''",
        "it has 2 fields, the header has 5",
    ]


def test_bytes_that_are_not_utf8_refuse_their_row_alone(folder):
    file = folder / "k.csv"
    header = b"youtube_id,time_start,time_end,split\n"
    file.write_bytes(header + b"\xff\xfe,1,2,test\nok,1,2,test\n")
    bad, good = folder.read("kinetics", file)
    assert "is not UTF-8" in bad.reason
    assert (good.id, good.label) == ("ok_000001_000002", None)


def test_class_lists(folder):
    file = folder.put("k.csv", "youtube_id,time_start,time_end\n")
    for content, name in (("a\na\n", "l.txt"), ({"a": "0", "b": "2"}, "l.json")):
        with pytest.raises(AnnotationError, match=r"a class twice|has no class 1"):
            folder.read("kinetics", file, labels=folder.put(name, content))


def test_something_something(folder):
    items = [
        {
            "id": "78687",
            "label": "holding potato next to box",
            "template": "Holding [something] next to [something]",
            "placeholders": ["potato", "box"],
        },
        {"id": 5},
        {"id": "6", "template": "Flying [something]", "label": "x"},
    ]
    file = folder.put("v.json", items)
    labels = folder.put("l.json", {"B": "1", "Holding something next to something": "0"})
    found = folder.read("ssv2", file, labels=labels)
    first, test, bad = found
    assert (first.label, first.extra) == (
        "Holding something next to something",
        {"label_index": 0},
    )
    assert first.captions == ("holding potato next to box",)
    assert first.path == folder / "media/78687.webm"
    assert (test.id, test.label) == ("5", None)
    assert "the class 'Flying something' is not in" in bad.reason


def test_ucf101(folder):
    labels = folder.put("classInd.txt", "1 Archery\r\n2 Biking\r\n")
    lines = "Biking/v_Biking_g08_c01.avi 2\nArchery/v_A_g1.avi\nArchery/v_A_g2.avi 2\nx\n"
    found = folder.read("ucf101", folder.put("l.txt", lines), labels=labels)
    biking, archery = (item for item in found if isinstance(item, Entry))
    assert (biking.id, biking.label, biking.extra) == (
        "v_Biking_g08_c01",
        "Biking",
        {"label_index": 1},
    )
    assert archery.path == folder / "media/Archery/v_A_g1.avi"
    assert reasons(found) == [
        "it has class 2, but 'Archery' is 1 in --labels",
        "'x' is no path of a video",
    ]


AVA = """\
v1,0903,0.1,0.2,0.3,0.4,12,1
v1,0902,0.077,0.151,0.283,0.811,80,1
v2,1000,0,0,1,1,12,0
v1,0902,0.077,0.151,0.283,0.811,12,1
v1,0902,0.1,0.1,0.5,0.5,2,7
"""
ITEMS = 'item {\n  name: "stand"\n  id: 12\n}\nitem {\n  name: "watch (a person)"\n  id: 80\n}\n'
FULL = (
    'label {\n  name: "stand"\n  label_id: 12\n  label_type: PERSON_MOVEMENT\n}\n'
    'label {\n  name: "watch (a person)"\n  label_id: 80\n  label_type: PERSON_INTERACTION\n}\n'
)


@pytest.mark.parametrize("names", [ITEMS, FULL])
def test_ava_has_boxes_that_records_understand(folder, names):
    file, labels = folder.put("a.csv", AVA), folder.put("l.pbtxt", names)
    folder.put("media/v1.mkv")
    found = folder.entries("ava", file, labels=labels, offset=900.0)
    entry = found["v1"]
    assert entry.path.name == "v1.mkv"
    assert [
        (b["time"], b["label"], b["label_index"], b["person"]) for b in entry.extra["boxes"]
    ] == [
        (2.0, "watch (a person)", 80, 1),
        (2.0, "stand", 12, 1),
        (3.0, "stand", 12, 1),
    ]
    boxes = read_boxes(entry.extra["boxes"])
    assert boxes.labels == ("watch (a person)", "stand", "stand")
    assert boxes.corners[0].tolist() == pytest.approx([0.077, 0.151, 0.283, 0.811])


def test_ava_has_clips_around_key_frames(folder):
    file = folder.put("a.csv", AVA)
    excluded = folder.put("e.csv", "v1,0903\nv2,0902\n")
    found = folder.entries("ava", file, excluded=excluded, per="keyframe")
    assert {name: (e.start, e.end) for name, e in found.items()} == {
        "v1_0902": (900.5, 903.5),
        "v2_1000": (998.5, 1001.5),
    }
    assert [box["label"] for box in found["v1_0902"].extra["boxes"]] == ["80", "12", "2"]


def test_ava_names_bad_rows(folder):
    rows = "v1,0902,0.5,0.1,0.4,0.9,1,1\nv1,0902,0.1,0.1,0.4,1.2,1,1\nv1,soon,0,0,1,1,1,1\nv1,1\n"
    found = folder.read("ava", folder.put("a.csv", rows))
    assert len(found) == 4
    assert "is not within 0 and 1, or empty" in found[0].reason
    assert "is not within 0 and 1, or empty" in found[1].reason
    assert found[2].reason == "the second must be a number, is 'soon'"
    assert (found[3].where, "it has 2 fields" in found[3].reason) == ("line 4", True)
    with pytest.raises(AnnotationError, match="is no list of `item"):
        folder.read("ava", folder.put("a.csv", AVA), labels=folder.put("l", "item { id: 1 }"))


MAPPING = "n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\n"
INDEX = {"1": ["n01443537", "goldfish"], "0": ["n01440764", "tench"]}


def test_imagenet_folders(folder):
    folder.put("media/n01443537/n01443537_1.JPEG")
    folder.put("media/n99999999/x.JPEG")
    found = folder.read("imagenet", labels=folder.put("m.txt", MAPPING))
    assert (found[0].id, found[0].label, found[0].extra) == (
        "n01443537_1",
        "goldfish, Carassius auratus",
        {"label_index": 1, "synset": "n01443537"},
    )
    assert reasons(found) == ["its folder is no class of --labels"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("s.csv", "ImageId,PredictionString\nval_1,n01443537 1 2 3 4 n01443537 5 6 7 8 \n"),
        ("val.txt", "val_1.JPEG 1\n"),
    ],
)
def test_imagenet_validation_lists(folder, name, content):
    folder.put("media/val_1.JPEG")
    labels = folder.put("i.json", INDEX)
    (entry,) = folder.entries("imagenet", folder.put(name, content), labels=labels).values()
    assert (entry.label, entry.extra["label_index"]) == ("goldfish", 1)
    assert entry.path == folder / "media/val_1.JPEG"


def test_imagenet_refuses_numbers_that_are_no_classes(folder):
    labels = folder.put("i.json", INDEX)
    found = folder.read(
        "imagenet", folder.put("v.txt", "val_1 1\nval_1.JPEG 2\n65\n"), labels=labels
    )
    assert reasons(found) == [
        "'val_1 1' has no name of an image file with its suffix",
        "class 2 is not among the 2 of --labels",
        "'65' has no name of an image file with its suffix",
    ]
    with pytest.raises(AnnotationError, match="which is no synset"):
        folder.read("imagenet", labels=folder.put("l.txt", "tench\n"))
