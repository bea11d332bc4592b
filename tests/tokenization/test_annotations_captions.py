"""Readers of captioned datasets, on small files in the published schemas."""

from __future__ import annotations

import json

import pytest

from tokenization.annotations.media import Media
from tokenization.annotations.problems import AnnotationError, ItemError, Malformed
from tokenization.manifest import Entry

PANDA = "videoID,url,timestamp,caption,matching_score,desirable_filtering,shot_boundary_detection\n"


def one_malformed(found: list[Entry | Malformed]) -> Malformed:
    (bad,) = (item for item in found if isinstance(item, Malformed))
    return bad


def times(entry: Entry) -> tuple[float | None, float | None]:
    return entry.start, entry.end


def test_panda70m_has_a_clip_for_each_timestamp(folder):
    row = (
        "abc,https://y/abc,\"[['0:00:11.011', '0:01:15.5'], ['1:00:00.000', '1:00:02.000']]\","
        "\"['A dog\\'s  run.', 'A cat, too.']\",\"[0.43, 0.5]\","
        "\"['desirable', '2_tiny_camera_movement']\",\"[[['0', '1']], []]\"\n"
    )
    file = folder.put("panda.csv", PANDA + row)
    folder.put("media/abc.webm")
    folder.put("media/abc_00001.mp4")
    first, second = folder.entries("panda70m", file).values()
    assert (first.id, first.path.name, times(first)) == ("abc_00000", "abc.webm", (11.011, 75.5))
    assert first.captions == ("A dog's run.",)
    assert first.extra["matching_score"] == 0.43
    assert first.extra["desirable_filtering"] == "desirable"
    assert (second.path.name, times(second)) == ("abc_00001.mp4", (None, None))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("\"[['0:00', '0:01']]\",\"['a', 'b']\"", "1 timestamps and 2 of 'caption'"),
        ("\"[['soon', '0:01']]\",['a']", "the time 'soon' is not like"),
        ("\"[['0:02', '0:01']]\",['a']", "must be 0 <= start < end"),
        ("\"[__import__('os')]\",['a']", "is no list"),
        ('"' + "[" * 5000 + "\",['a']", "is no list"),
        ("'a',['a']", "must be a list"),
        ("[5]", "it has 3 fields, the header has 4"),
    ],
)
def test_a_bad_row_of_panda70m_is_named_and_the_next_is_read(folder, row, reason):
    good = 'def,u,"[[1.5, 3]]","[\'fine\']"\n'
    file = folder.put("panda.csv", f"videoID,url,timestamp,caption\nabc,u,{row}\n{good}")
    found = folder.read("panda70m", file)
    bad = one_malformed(found)
    assert (bad.file, bad.where) == (file, "line 2")
    assert reason in bad.reason
    assert "each item should be like" in bad.remedy
    assert [item.id for item in found if isinstance(item, Entry)] == ["def_00000"]


def test_panda70m_reads_the_folder_of_its_downloader(folder):
    folder.put("media/00000/0000000_00000.mp4")
    folder.put("media/00000/0000000_00000.txt", "A dog runs.\n")
    folder.put("media/00001/0000100_00004.mp4")
    folder.put("media/00001/0000100_00004.json", {"caption": "A cat."})
    folder.put("media/00001/0000101_00000.mp4")
    found = folder.read("panda70m")
    assert one_malformed(found).reason.startswith("neither 0000101_00000.txt nor")
    good = {item.id: item.captions for item in found if isinstance(item, Entry)}
    assert good == {"00000/0000000_00000": ("A dog runs.",), "00001/0000100_00004": ("A cat.",)}


def test_msrvtt_and_msvd_json(folder):
    one = folder.put("a.json", [{"video": "video7020.mp4", "caption": "a  woman "}])
    many = folder.put("b.json", [{"video": "ey_1_5.avi", "caption": ["a dog", "", "dogs"]}])
    folder.put("media/video7020.mp4")
    folder.put("media/ey_1_5.mp4")
    assert folder.entries("msrvtt", one)["video7020"].captions == ("a woman",)
    entry = folder.entries("msvd", many)["ey_1_5"]
    assert (entry.captions, entry.path) == (("a dog", "dogs"), folder / "media/ey_1_5.mp4")


@pytest.mark.parametrize("separator", [",", ";"])
def test_msrvtt_jsfusion_csv(folder, separator):
    rows = [["key", "vid_key", "video_id", "sentence"], ["ret0", "m9", "video9770", "a person"]]
    file = folder.put("t.csv", "\n".join(separator.join(row) for row in rows))
    entry = folder.entries("msrvtt", file)["video9770"]
    assert (entry.captions, entry.path.name) == (("a person",), "video9770.mp4")


def test_msrvtt_videodatainfo(folder):
    videos = [{"video_id": "video0", "split": "train"}, {"video_id": "video1", "split": "test"}]
    sentences = [
        {"video_id": "video1", "caption": "a"},
        {"video_id": "video0", "caption": "b"},
        {"video_id": "video1", "caption": "c"},
    ]
    file = folder.put("d.json", {"videos": videos, "sentences": sentences})
    found = folder.entries("msrvtt", file, split="test")
    assert {name: entry.captions for name, entry in found.items()} == {"video1": ("a", "c")}
    assert list(folder.entries("msrvtt", file)) == ["video0", "video1"]
    file = folder.put("d.json", {"videos": videos[:1], "sentences": sentences[:2]})
    bad = one_malformed(folder.read("msrvtt", file))
    assert (bad.where, bad.reason) == ("sentence item 0", "'video1' is not among the file's videos")
    file = folder.put("d.json", {"videos": [{"video_id": ["video0"]}], "sentences": []})
    assert "'video_id' must be a text" in one_malformed(folder.read("msrvtt", file)).reason


def test_activitynet_has_paragraphs_or_events(folder):
    video = {
        "duration": 55.15,
        "timestamps": [[0.28, 55.15], [13.79, 54.32]],
        "sentences": ["A man lifts.", "  He  rests."],
    }
    second = {"duration": 55.15, "timestamps": [[0, 1]], "sentences": ["Weights."]}
    one, two = folder.put("1.json", {"v_a": video}), folder.put("2.json", {"v_a": second})
    folder.put("media/v_a.mkv")
    entry = folder.entries("activitynet", one, two)["v_a"]
    assert entry.captions == ("A man lifts. He rests.", "Weights.")
    assert (entry.path.name, times(entry)) == ("v_a.mkv", (None, None))
    events = folder.entries("activitynet", one, two, per="event")
    assert {name: (times(e), e.captions) for name, e in events.items()} == {
        "v_a_0": ((0.28, 55.15), ("A man lifts.",)),
        "v_a_1": ((13.79, 54.32), ("He rests.",)),
        "v_a_2": ((0.0, 1.0), ("Weights.",)),
    }


def test_a_paragraph_of_activitynet_is_in_the_order_of_time(folder):
    video = {"timestamps": [[5, 9], [0, 4], [5, 6]], "sentences": ["Then.", "First.", "Also."]}
    folder.put("media/v_a.mp4")
    file = folder.put("1.json", {"v_a": video})
    assert folder.entries("activitynet", file)["v_a"].captions == ("First. Then. Also.",)


@pytest.mark.parametrize(
    ("dataset", "item", "reason"),
    [
        ("msrvtt", {"video": "a.mp4", "captoin": "x"}, "has no 'caption', but 'captoin'"),
        ("ssv2", {"id": "1", "Template": "x"}, "has no 'template', but 'Template'"),
        ("ssv2", {"id": "1", "template": "x", "lable": "y"}, "has no 'label', but 'lable'"),
        (
            "youcook2",
            {"youtube_id": "a", "segment": [0, 1], "sentence": "x", "recipetype": "1"},
            "has no 'recipe_type', but 'recipetype'",
        ),
    ],
)
def test_a_misspelt_key_is_named_also_of_what_may_lack(folder, dataset, item, reason):
    folder.put("media/a.mp4")
    bad = one_malformed(folder.read(dataset, folder.put("1.json", [item])))
    assert bad.reason == reason


@pytest.mark.parametrize(
    ("video", "reason"),
    [
        ({"timestamps": [[0, 1], [1, 2]], "sentences": ["a"]}, "2 timestamps and 1 sentences"),
        ({"timestamps": [[float("nan"), 1]], "sentences": ["a"]}, "start must be a number"),
        ({"timestamps": [[True, 2]], "sentences": ["a"]}, "start must be a number"),
        ({"timestamps": [1], "sentences": ["a"]}, "must be [start, end]"),
        ({"timestamps": [[0, 1]], "sentences": [3]}, "must be texts"),
        ({"timestamps": [[0, 1]], "sentences": [" "]}, "has no caption"),
        ({"timestamps": [[0, 1]]}, "has no 'sentences'"),
        ([], "is list, not an object"),
    ],
)
@pytest.mark.parametrize("per", ["video", "event"])
def test_a_bad_video_of_activitynet_is_named(folder, video, reason, per):
    good = {"timestamps": [[0, 1]], "sentences": ["a"]}
    file = folder.put("1.json", {"v_bad": video, "v_good": good})
    found = folder.read("activitynet", file, per=per)
    bad = one_malformed(found)
    assert bad.where.partition(",")[0] == "key 'v_bad'"
    assert reason in bad.reason
    assert len(found) == 2


def test_an_event_of_activitynet_that_ends_before_it_starts_takes_no_other_with_it(folder):
    video = {"timestamps": [[5, 9], [4, 4], [0, 3]], "sentences": ["Last.", "Bad.", "First."]}
    file = folder.put("1.json", {"v_a": video})
    found = folder.read("activitynet", file, per="event")
    bad = one_malformed(found)
    assert bad.where == "key 'v_a', sentence 1"
    assert "must be 0 <= start < end" in bad.reason
    assert [entry.id for entry in found if isinstance(entry, Entry)] == ["v_a_0", "v_a_2"]
    (paragraph,) = folder.read("activitynet", file)
    assert paragraph.captions == ("First. Bad. Last.",)


def test_vatex_finds_cut_clips_and_whole_videos(folder):
    captions = {"enCap": ["a", "b"], "chCap": ["狗"]}
    items = [{"videoID": name, **captions} for name in ("a_b_000122_000132", "cd_000000_000010")]
    file = folder.put("v.json", [*items, {"videoID": "e_5", **captions}])
    folder.put("media/a_b.mp4")
    folder.put("media/cd_000000_000010.mp4")
    found = folder.read("vatex", file)
    first, second = (item for item in found if isinstance(item, Entry))
    assert (first.path.name, times(first)) == ("a_b.mp4", (122.0, 132.0))
    assert (second.path.name, times(second)) == ("cd_000000_000010.mp4", (None, None))
    assert first.captions == ("a", "b")
    assert "'e_5' is not <YouTube id>_<start>_<end>" in one_malformed(found).reason
    assert [e.captions for e in folder.read("vatex", file, language="ch")[:2]] == [("狗",)] * 2


def test_charades_sta_joins_sentences_about_the_same_moment(folder):
    lines = "3MSZA 24.3 30.4##person turn a light on.\n3MSZA 24.3 30.4##they flip it.\n\n"
    file = folder.put("sta.txt", lines + "AMT7R 4.3 12.5##a person.\nAMT7R 4.3##no end\n")
    found = folder.read("charades-sta", file)
    first, second = (item for item in found if isinstance(item, Entry))
    assert (first.id, times(first)) == ("3MSZA_24.3_30.4", (24.3, 30.4))
    assert first.captions == ("person turn a light on.", "they flip it.")
    assert second.path == folder / "media/AMT7R.mp4"
    assert one_malformed(found).where == "line 5"


def youcook2() -> dict[str, object]:
    segments = [
        {"segment": [25, 37], "id": 0, "sentence": "cut the onion"},
        {"segment": [37, 50], "id": 1, "sentence": "peel carrots"},
    ]
    video = {"subset": "validation", "recipe_type": "212", "annotations": segments}
    return {"database": {"ab": video, "cd": {**video, "subset": "training"}}}


def test_youcook2(folder):
    file = folder.put("y.json", youcook2())
    folder.put("media/validation/212/ab.mkv")
    found = folder.entries("youcook2", file, split="validation")
    assert {name: (times(e), e.captions) for name, e in found.items()} == {
        "ab_0": ((25.0, 37.0), ("cut the onion",)),
        "ab_1": ((37.0, 50.0), ("peel carrots",)),
    }
    assert found["ab_0"].path == folder / "media/validation/212/ab.mkv"
    videos = folder.entries("youcook2", file, per="video")
    assert {n: e.captions for n, e in videos.items()} == dict.fromkeys(
        ("ab", "cd"), ("cut the onion peel carrots",)
    )


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl"])
def test_youcook2_rows(folder, name):
    rows = [
        {"youtube_id": "ab", "segment": [1, 2], "sentence": "x", "video_path": "val/2/ab.mp4"},
        {"youtube_id": "ab", "segment": [2, 4], "sentence": "y", "video_path": "val/2/ab.mp4"},
    ]
    lines = "\n".join(map(json.dumps, rows))
    file = folder.put(name, rows if name.endswith("json") else lines)
    folder.put("media/val/2/ab.mp4")
    found = folder.entries("youcook2", file)
    assert [(e.id, times(e), e.path.parent.name) for e in found.values()] == [
        ("ab_0", (1.0, 2.0), "2"),
        ("ab_1", (2.0, 4.0), "2"),
    ]


def test_didemo_has_paragraphs_or_moments(folder):
    items = [
        {"annotation_id": 1, "video": "a@N04_1.m4v", "description": "kicks", "times": [[4, 4]]},
        {
            "annotation_id": 2,
            "video": "a@N04_1.m4v",
            "description": "runs",
            "times": [[4, 5], [0, 1], [0, 1]],
        },
    ]
    file = folder.put("d.json", items)
    folder.put("media/a@N04_1.mp4")
    (entry,) = folder.entries("didemo", file).values()
    assert (entry.id, entry.captions, entry.path.suffix) == ("a@N04_1", ("kicks runs",), ".mp4")
    found = folder.entries("didemo", file, per="moment")
    assert {n: times(e) for n, e in found.items()} == {"1": (20.0, 25.0), "2": (0.0, 10.0)}


@pytest.mark.parametrize(
    ("annotated", "on_disk"),
    [
        ("a@N04_1.", "a@N04_1."),
        ("a@N04_1.", "a@N04_1.mp4"),
        ("a@N04_1.", "a@N04_1..mp4"),
        ("a@N04_1.mp4", "a@N04_1."),
        ("a@N04_1.3g2", "a@N04_1.3g2"),
        ("a@N04_1.m2ts", "a@N04_1.mp4"),
        ("a@N04_1.mov", "a@N04_1.mov.mp4"),
        ("a@N04_1.else", "a@N04_1.mp4"),
    ],
)
def test_a_video_of_didemo_is_found_in_whatever_suffix(folder, annotated, on_disk):
    item = {"annotation_id": 1, "video": annotated, "description": "runs", "times": [[0, 0]]}
    folder.put(f"media/{on_disk}")
    (entry,) = folder.entries("didemo", folder.put("d.json", [item])).values()
    assert (entry.id, entry.path.name) == ("a@N04_1", on_disk)


def test_a_video_of_didemo_under_two_suffixes_is_one(folder):
    items = [
        {
            "annotation_id": n,
            "video": f"a.{suffix}",
            "description": suffix or "none",
            "times": [[0, 0]],
        }
        for n, suffix in enumerate(("", "mp4", "3g2"))
    ]
    file = folder.put("d.json", items)
    (entry,) = folder.entries("didemo", file).values()
    assert (entry.id, entry.captions) == ("a", ("none mp4 3g2",))
    moments = folder.entries("didemo", file, per="moment").values()
    assert {entry.extra["video"] for entry in moments} == {"a"}


def test_datacomp_reads_captions_beside_images(folder):
    with pytest.raises(AnnotationError, match=r"has no file \.jpg"):
        folder.read("datacomp")
    folder.put("media/00000.tar")
    with pytest.raises(AnnotationError, match="unpack its shards: for f in"):
        folder.read("datacomp")
    folder.put("media/00000/000000001.jpg")
    folder.put("media/00000/000000001.txt", "a dog\n runs")
    folder.put("media/00000/000000002.png")
    (folder / "media/00000/000000002.txt").write_bytes(b"\xff")
    found = folder.read("datacomp")
    assert (found[0].id, found[0].captions) == ("00000/000000001", ("a dog runs",))
    assert "its caption cannot be read" in one_malformed(found).reason


@pytest.mark.parametrize(
    "lines",
    [
        'a "dog\thttp://x/0\nb\thttp://x/1\nc\thttp://x/2\n',
        'caption\turl\na "dog\thttp://x/0\nb\thttp://x/1\nc\thttp://x/2\n',
        'http://x/0\ta "dog\nhttp://x/1\tb\nhttp://x/2\tc\n',
    ],
)
def test_cc_names_images_as_img2dataset_does(folder, lines):
    file = folder.put("cc.tsv", lines)
    folder.put("media/00001/000010.jpg")
    folder.put("media/00001/000010.json", {"url": "http://x/2"})
    found = folder.entries("cc", file, per_shard=2)
    assert {
        e.path.relative_to(folder / "media").as_posix(): e.captions[0] for e in found.values()
    } == {
        "00000/000000.jpg": 'a "dog',
        "00000/000001.jpg": "b",
        "00001/000010.jpg": "c",
    }
    assert folder.entries("cc", file)["000000002"].path.parent.name == "00000"


def test_cc_refuses_the_image_of_another_row(folder):
    file = folder.put("cc.tsv", "a\thttp://x/0\nno url\tat all\n")
    folder.put("media/00000/000000000.json", {"url": "http://other"})
    first, second = folder.read("cc", file)
    assert "is of 'http://other', this row of 'http://x/0'" in first.reason
    assert second.reason == "it has 2 fields, 0 of them a url"


def test_coco_collects_the_captions_of_an_image(folder):
    images = [{"id": 7, "file_name": "000007.jpg"}, {"id": 8, "file_name": "000008.jpg"}]
    notes = [
        {"image_id": n, "id": i, "caption": c}
        for i, (n, c) in enumerate([(7, "a"), (7, "b"), (9, "c")])
    ]
    file = folder.put("captions_val2017.json", {"images": images, "annotations": notes})
    folder.put("media/val2017/000007.jpg")
    good, none, stray = folder.read("coco", file)
    assert (good.id, good.captions, good.path) == (
        "000007",
        ("a", "b"),
        folder / "media/val2017/000007.jpg",
    )
    assert (none.where, none.reason) == ("item 1", "it has no caption")
    assert stray.where == "image 9"


def test_coco_reads_karpathys_splits(folder):
    images = [
        {
            "filename": f"{s}.jpg",
            "filepath": "val2014",
            "split": s,
            "sentences": [{"raw": f"a {s}"}],
        }
        for s in ("test", "val")
    ]
    file = folder.put("dataset_coco.json", {"images": images, "dataset": "coco"})
    (entry,) = folder.entries("coco", file, split="test").values()
    assert (entry.captions, entry.path.parent.name) == (("a test",), "val2014")


def test_a_file_of_another_dataset_is_refused(folder):
    file = folder.put("a.json", {"a": 1})
    for dataset in ("msrvtt", "vatex", "didemo", "ssv2", "coco"):
        with pytest.raises(AnnotationError, match="is it the file of another dataset"):
            folder.read(dataset, file)
    with pytest.raises(AnnotationError, match="is it the file of another dataset"):
        folder.read("youcook2", file)
    for dataset in ("kinetics", "panda70m", "charades"):
        with pytest.raises(AnnotationError, match="has no column"):
            folder.read(dataset, folder.put("a.csv", "x,y\n1,2\n"))
    with pytest.raises(AnnotationError, match=r"b\.json is no JSON file: .* line 1 column 2"):
        folder.read("activitynet", folder.put("b.json", "{'a': 1}"))
    with pytest.raises(AnnotationError, match=r"no\.json cannot be read: No such file"):
        folder.read("activitynet", folder / "no.json")


@pytest.mark.parametrize("name", ["../a.mp4", "/etc/a.mp4", "a/../../b.mp4", "a\0.mp4", ".."])
def test_a_name_may_not_leave_the_media_folder(folder, name):
    with pytest.raises(ItemError, match="leaves the media folder"):
        Media(folder / "media").path(name)
    file = folder.put("a.json", [{"video": name, "caption": "x"}])
    assert "leaves the media folder" in one_malformed(folder.read("msrvtt", file)).reason


def test_media_prefers_the_exact_name_and_the_first_folder(folder):
    for name in ("one/a.mp4", "two/a.avi", "two/b.webm", "two/c.txt"):
        folder.put(name)
    media = Media(folder / "one", folder / "two")
    assert media.find("a.avi") == folder / "one/a.mp4"
    assert Media(folder / "two").find("a.avi") == folder / "two/a.avi"
    assert media.find("b") == folder / "two/b.webm"
    assert media.find("c", "none/d") is None
    assert media.path("c") == folder / "one/c.mp4"
    with pytest.raises(FileNotFoundError, match="--media names the folder"):
        Media(folder / "three")
