"""The viewer's page in headless Chromium: what a person sees and touches."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tokenization.explore import page
from tokenization.explore.items import Item
from tokenization.trajectories import Trajectories, VideoInfo

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

FRAMES, HEIGHT, WIDTH, CELL = 5, 120, 160, 8
READY = ".trajectory-explorer[data-ready]"


def grid(video_id: str = "grid", *, cell: int = CELL) -> Item:
    """Cells that drift to the right, 300 of them; cell 7 hides in frame 2."""
    rows, columns = HEIGHT // cell, WIDTH // cell
    cells = np.arange(1, rows * columns + 1).reshape(rows, columns)
    cells = cells.repeat(cell, 0).repeat(cell, 1)
    labels = np.stack([np.roll(cells, 3 * t, axis=1) for t in range(FRAMES)])
    labels[2][labels[2] == 7] = 0
    rgb = np.stack([labels * 37 % 256, labels * 91 % 256, labels * 5 % 256], -1).astype(np.uint8)
    trajectories = Trajectories.from_labels(
        labels,
        frame_times=np.arange(FRAMES, dtype=np.float32) / 4,
        key_frames=np.array([True, False, False, True, False]),
        video=VideoInfo(video_id, WIDTH, HEIGHT, 4.0, FRAMES / 4),
    )
    return Item(rgb, trajectories, ("cells drift to the right",))


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium: set CHROMIUM to its path, or install Debian's chromium")
    with playwright.sync_playwright() as driver:
        program = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield program
        program.close()


class Viewer:
    """The one open tab, and questions to it."""

    def __init__(self, tab: playwright.Page) -> None:
        self.page = tab
        self.troubles: list[str] = []
        self.requests: list[str] = []
        tab.on("console", lambda message: self.troubles.append(message.text))
        tab.on("pageerror", lambda error: self.troubles.append(str(error)))
        tab.on("request", lambda request: self.requests.append(request.url))

    def show(self, file: Path, *, width: int = 1280, scheme: str = "light") -> Viewer:
        self.troubles.clear()
        self.requests.clear()
        self.page.mouse.move(0, 0)
        self.page.set_viewport_size({"width": width, "height": 860})
        self.page.emulate_media(color_scheme=scheme)
        self.page.goto(file.as_uri())
        self.page.wait_for_selector(READY, state="attached")
        return self

    def check(self) -> None:
        """Nothing was complained of, and nothing asked from elsewhere."""
        assert self.troubles == []
        assert [url for url in self.requests if not url.startswith(("file:", "data:"))] == []

    def pixels(self, pane: str = "tokens") -> np.ndarray:
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => done()))")
        box = f".pane.{pane} canvas"
        png = self.page.locator(box).screenshot()
        with Image.open(io.BytesIO(png)) as picture:
            return np.asarray(picture.convert("RGB")).astype(int)

    def point_at(self, x: int, y: int, pane: str = "tokens") -> tuple[float, float]:
        """Moves the mouse to the middle of a cell of the label map."""
        box = self.page.locator(f".pane.{pane} canvas").bounding_box()
        at = (
            box["x"] + (x + 0.5) * box["width"] / WIDTH,
            box["y"] + (y + 0.5) * box["height"] / HEIGHT,
        )
        self.page.mouse.move(*at)
        return at

    def tooltip(self) -> int:
        return int(self.page.locator(".tooltip").get_attribute("data-id"))

    def highlighted(self) -> list[str]:
        return self.page.locator(".row.focus .id").all_inner_texts()

    def pinned(self) -> list[str]:
        return self.page.locator(".row.pinned .id").all_inner_texts()


@pytest.fixture(scope="module")
def viewer(browser) -> Iterator[Viewer]:
    context = browser.new_context(offline=True)
    yield Viewer(context.new_page())
    context.close()


@pytest.fixture
def open_page(viewer, tmp_path):
    def start(*items: Item, **options) -> Viewer:
        page.write_page(tmp_path / "page.html", items or [grid()])
        return viewer.show(tmp_path / "page.html", **options)

    yield start
    viewer.check()


def test_one_bar_a_trajectory_in_order_of_birth_with_gaps(open_page):
    viewer = open_page()
    assert viewer.page.locator(".row").count() == 300
    assert viewer.page.locator(".row[data-id='7'] .track i").count() == 2, "a gap splits the bar"
    assert viewer.page.locator(".row[data-id='8'] .track i").count() == 1
    assert viewer.page.locator(".tick.key").count() == 2
    assert "588 tubelets" in viewer.page.locator(".compare").inner_text()
    assert "2.0×" in viewer.page.locator(".ratio").inner_text()
    assert "cells drift to the right" in viewer.page.locator(".captions").inner_text()
    scrolls = viewer.page.locator(".rows").evaluate("e => e.scrollHeight > 2 * e.clientHeight")
    assert scrolls


def test_scrubbing_changes_the_counter_and_both_panes(open_page):
    viewer = open_page()
    before = [viewer.pixels(pane) for pane in ("video", "tokens")]
    viewer.page.locator(".scrubber").fill("3")
    assert "Frame 4 of 5" in viewer.page.locator(".counter").inner_text()
    for pane, old in zip(("video", "tokens"), before, strict=True):
        assert (viewer.pixels(pane) != old).any(axis=-1).mean() > 0.2
    ruler = viewer.page.locator(".ruler").bounding_box()
    middle = ruler["y"] + ruler["height"] / 2
    for frame in range(FRAMES):
        viewer.page.mouse.click(ruler["x"] + (frame + 0.5) * ruler["width"] / FRAMES, middle)
        assert f"Frame {frame + 1} of 5" in viewer.page.locator(".counter").inner_text()


def test_hovering_any_pixel_names_its_trajectory_exactly(open_page):
    item = grid()
    viewer = open_page(item)
    labels = item.trajectories.labels
    rng = np.random.default_rng(0)
    asked = []
    for frame in (0, 2):
        viewer.page.locator(".scrubber").fill(str(frame))
        points = rng.integers(0, (WIDTH, HEIGHT), (8, 2)).tolist()
        points += [[0, 0], [WIDTH - 1, HEIGHT - 1], np.argwhere(labels[frame].T == 299)[0].tolist()]
        for x, y in points:
            viewer.point_at(x, y, "video" if x % 2 else "tokens")
            asked.append(int(labels[frame, y, x]))
            assert viewer.tooltip() == asked[-1]
            assert viewer.highlighted() == ([str(asked[-1])] if asked[-1] else [])
    assert max(asked) > 255


def test_a_pixel_without_trajectory_says_so(open_page):
    item = grid()
    viewer = open_page(item)
    viewer.page.locator(".scrubber").fill("2")
    y, x = np.argwhere(item.trajectories.labels[2] == 0)[20]
    viewer.point_at(int(x), int(y))
    assert viewer.page.locator(".tooltip").inner_text() == "No trajectory"


def test_hovering_a_bar_shows_the_token_in_both_panes(open_page):
    viewer = open_page()
    item = grid()
    before = {pane: viewer.pixels(pane) for pane in ("video", "tokens")}
    viewer.page.locator(".row[data-id='42']").hover()
    assert viewer.tooltip() == 42
    assert "Trajectory 42" in viewer.page.locator(".token").inner_text()
    y, x = np.argwhere(item.trajectories.labels[0] == 42).mean(axis=0) + 0.5
    for pane, old in before.items():
        new = viewer.pixels(pane)
        height, width = new.shape[:2]
        at = int(y * height / HEIGHT), int(x * width / WIDTH)
        assert np.abs(new[at] - old[at]).max() < 12, "the token itself stays"
        assert new[-30:].mean() < 0.7 * old[-30:].mean(), "what is far from it is dimmed"
    box = viewer.page.locator(".token").inner_text()
    assert "8, 16 – 16, 24" in box


def test_click_pins_and_escape_or_a_second_click_releases(open_page):
    item = grid()
    viewer = open_page(item)
    own = str(item.trajectories.labels[0, 100, 50])
    at = viewer.point_at(50, 100)
    viewer.page.mouse.click(*at)
    viewer.page.mouse.move(5, 5)
    assert viewer.pinned() == [own] == viewer.highlighted()
    row = viewer.page.locator(".row.pinned").bounding_box()
    rows = viewer.page.locator(".rows").bounding_box()
    assert rows["y"] <= row["y"] < rows["y"] + rows["height"], "its bar is scrolled into view"
    viewer.page.keyboard.press("Escape")
    assert viewer.pinned() == viewer.highlighted() == []
    viewer.page.mouse.click(*at)
    assert viewer.pinned() == [own]
    viewer.page.mouse.click(*at)
    assert viewer.pinned() == []
    viewer.page.locator(".row").nth(3).click()
    assert viewer.pinned() == ["4"]


def test_keys_step_play_and_walk_through_trajectories(open_page):
    viewer = open_page()
    counter = viewer.page.locator(".counter")
    viewer.page.keyboard.press("ArrowRight")
    assert "Frame 2 of 5" in counter.inner_text()
    viewer.page.keyboard.press("End")
    assert "Frame 5 of 5" in counter.inner_text()
    viewer.page.keyboard.press("ArrowLeft")
    assert "Frame 4 of 5" in counter.inner_text()
    viewer.page.keyboard.press("ArrowDown")
    viewer.page.keyboard.press("ArrowDown")
    assert viewer.pinned() == ["2"]
    viewer.page.keyboard.press("Space")
    viewer.page.wait_for_function(
        "() => document.querySelector('.trajectory-explorer').shadowRoot"
        ".querySelector('.counter').textContent.includes('Frame 1 of 5')"
    )
    viewer.page.keyboard.press("Space")
    assert viewer.page.locator(".play").get_attribute("aria-label") == "Play"


def test_opacity_and_lines_change_the_overlay_only(open_page):
    viewer = open_page()
    video, full = viewer.pixels("video"), viewer.pixels()
    viewer.page.locator(".lines input").uncheck()
    without_lines = viewer.pixels()
    assert (without_lines != full).any()
    viewer.page.locator(".opacity input").fill("0")
    grey = viewer.pixels()
    assert np.ptp(grey[20:-20, 20:-20], axis=-1).max() <= 6, "no colour is left"
    np.testing.assert_array_equal(viewer.pixels("video"), video)


def test_several_videos_are_chosen_by_name(open_page):
    viewer = open_page(grid("first"), grid("second", cell=40))
    viewer.page.locator("select").select_option(label="second")
    viewer.page.wait_for_selector("[data-ready='second']", state="attached")
    assert viewer.page.locator(".row").count() == 12
    assert viewer.page.locator(".name").inner_text() == "second"


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_it_fits_a_phone_and_a_desk_and_follows_the_scheme(width, scheme, open_page, tmp_path):
    viewer = open_page(width=width, scheme=scheme)
    overflow = viewer.page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
    assert overflow <= 0
    picture = tmp_path / "screen.png"
    viewer.page.screenshot(path=picture, full_page=True)
    with Image.open(picture) as image:
        assert image.width == width
        paper = image.convert("L").getpixel((width // 2, 30))
    assert (paper < 64) == (scheme == "dark")
    panes = [viewer.page.locator(f".pane.{p}").bounding_box() for p in ("video", "tokens")]
    stacked = panes[1]["y"] > panes[0]["y"] + 100
    assert stacked == (width == 390)


def test_fragments_on_one_page_do_not_clash(viewer, tmp_path):
    parts = [page.render_fragment([grid("a")]), page.render_fragment([grid("b", cell=40)])]
    style = "<style>.row, canvas { display: none !important }</style>"
    document = f"<!doctype html><meta charset=utf-8>{style}<h1>Report</h1>{'<hr>'.join(parts)}"
    (tmp_path / "report.html").write_text(document, encoding="utf-8")
    viewer.show(tmp_path / "report.html")
    viewer.page.wait_for_function(f"() => document.querySelectorAll('{READY}').length === 2")
    first, second = (viewer.page.locator(".trajectory-explorer").nth(i) for i in (0, 1))
    assert (first.locator(".row").count(), second.locator(".row").count()) == (300, 12)
    assert second.locator(".pane.tokens canvas").bounding_box()["height"] > 50
    viewer.page.keyboard.press("ArrowRight")
    assert "Frame 1 of 5" in first.locator(".counter").inner_text(), "keys belong to the report"
    second.locator(".pane.tokens canvas").hover()
    viewer.page.keyboard.press("ArrowRight")
    assert "Frame 2 of 5" in second.locator(".counter").inner_text()
    assert "Frame 1 of 5" in first.locator(".counter").inner_text()
    added = viewer.page.evaluate(
        """() => {
          const clean = document.body.appendChild(document.createElement("iframe")).contentWindow;
          const names = new Set(Object.getOwnPropertyNames(clean));
          return Object.getOwnPropertyNames(window).filter((name) => !names.has(name));
        }"""
    )
    assert set(added) <= {"0"}, "the page's own names (0 is the frame)"
    viewer.check()
