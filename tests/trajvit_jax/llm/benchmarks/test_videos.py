"""Which file is a question's video: by its name, wherever it lies, and never an image of it."""

from __future__ import annotations

import pytest

from tokenization.annotations.problems import AnnotationError
from trajvit_jax.llm.benchmarks.contract import Item
from trajvit_jax.llm.benchmarks.videos import Videos


def found(folder, *names: str, under: str = "videos") -> str | None:
    path = Videos([folder.path / under]).find(Item("q", names, "", "", ""))
    return None if path is None else path.relative_to(folder.path / under).as_posix()


@pytest.mark.parametrize("below", ["", "deep/"])
@pytest.mark.parametrize("image", ["x.jpg", "x.PNG", "x.gif", "x.mp4.jpg"])
def test_an_image_beside_a_video_is_not_taken_for_it(folder, below, image):
    folder.put(f"videos/{below}{image}")
    assert found(folder, "x") is None
    folder.put(f"videos/{below}x.mp4")
    for name in ("x", "x.mp4", "x.avi"):
        assert found(folder, name) == f"{below}x.mp4"


@pytest.mark.parametrize("below", ["", "deep/"])
def test_a_gif_is_a_video_where_the_annotation_says_so(folder, below):
    folder.put(f"videos/{below}x.gif")
    assert found(folder, "x.gif") == f"{below}x.gif"
    folder.put(f"videos/{below}x.mp4")
    assert found(folder, "x.gif") == f"{below}x.gif"


@pytest.mark.parametrize("below", ["", "deep/"])
def test_two_videos_of_a_name_are_an_error_unless_one_is_as_annotated(folder, below):
    for name in ("a.mkv", "a.mp4"):
        folder.put(f"videos/{below}{name}")
    for name in ("a", "a.webm"):
        with pytest.raises(AnnotationError) as error:
            found(folder, name)
        message = str(error.value)
        assert f"the video {name!r} of the question 'q' may be" in message
        assert "a.mkv or" in message and "a.mp4; name one folder" in message
    assert found(folder, "a.mp4") == f"{below}a.mp4"


def test_a_folder_with_its_image_alone_hides_no_video_of_the_next(folder):
    folder.put("one/x.jpg")
    folder.put("two/x.mp4")
    videos = Videos([folder.path / "one", folder.path / "two"])
    path = videos.find(Item("q", ("x",), "", "", ""))
    assert path is not None and path.parts[-2:] == ("two", "x.mp4")


def test_the_likeliest_name_comes_first_and_a_second_suffix_is_no_hindrance(folder):
    folder.put("videos/v_1.mp4")
    folder.put("videos/1.mp4")
    folder.put("videos/b.mov.mp4")
    folder.put("videos/b.jpg")
    assert found(folder, "v_1", "1") == "v_1.mp4"
    assert found(folder, "b.mov") == "b.mov.mp4"
    with pytest.raises(AnnotationError, match=r"'q': the name '\.\./x' leaves"):
        found(folder, "../x")
