"""Weights: given, downloaded from a server on this machine, checked, and refused."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import json
import re
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tokenization import folder_lock, weights
from tokenization.weights import WeightFile, WeightsError, locate

CONTENT = bytes(range(256)) * 5000
SUM = hashlib.sha256(CONTENT).hexdigest()


class Hub:
    """/plain answers at once; /hub tells a sum and a commit, and sends on to /plain."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.etag = f'"{SUM}"'
        self.length = len(CONTENT)
        self.delay = 0.0
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.asked.append(self.path)
                time.sleep(hub.delay)
                if self.path == "/hub":
                    self.send_response(302)
                    self.send_header("Location", "/plain")
                    self.send_header("X-Linked-Etag", hub.etag)
                    self.send_header("X-Repo-Commit", "abc123")
                    self.end_headers()
                elif self.path == "/plain":
                    self.send_response(200)
                    self.send_header("Content-Length", str(hub.length))
                    self.end_headers()
                    self.wfile.write(CONTENT)
                else:
                    self.send_error(404)

            def log_message(self, *_) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def file(self, path: str = "/plain", **values) -> WeightFile:
        port = self.server.server_address[1]
        return WeightFile("net/model.safetensors", f"http://127.0.0.1:{port}{path}", **values)


@pytest.fixture
def hub():
    hub = Hub()
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(weights.CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def kept(cache: Path) -> list[str]:
    """Files of weights and notes; those that are held while one downloads stay."""
    files = [path for path in cache.rglob("*") if path.is_file()]
    return sorted(path.name for path in files if path.suffix != ".lock")


def test_downloads_once_and_keeps(hub, cache, capsys):
    path = locate(hub.file(sha256=SUM, size=len(CONTENT)))
    assert path == cache / "net/model.safetensors"
    assert path.read_bytes() == CONTENT
    assert "model.safetensors: 100%" in capsys.readouterr().err
    assert locate(hub.file(sha256=SUM)) == path
    assert hub.asked == ["/plain"]
    assert kept(cache) == ["model.safetensors", "model.safetensors.source.json"]


@pytest.mark.skipif(folder_lock.fcntl is None, reason="this system has no locks")
def test_of_several_workers_one_downloads(hub):
    hub.delay = 0.5
    with ThreadPoolExecutor(4) as workers:
        found = set(workers.map(locate, [hub.file()] * 4))
    assert [path.read_bytes() for path in found] == [CONTENT]
    assert hub.asked == ["/plain"]


def test_a_hub_vouches_for_what_is_not_pinned(hub, cache):
    path = locate(hub.file("/hub"))
    note = json.loads(path.with_name("model.safetensors.source.json").read_text())
    assert note == {"url": hub.file("/hub").url, "sha256": SUM, "commit": "abc123"}
    hub.etag = f'"{"0" * 64}"'
    path.unlink()
    with pytest.raises(WeightsError, match=f"SHA-256 is {SUM}, not {'0' * 64}; nothing was kept"):
        locate(hub.file("/hub"))
    assert not path.exists()


def test_another_file_than_pinned_is_not_kept(hub, cache):
    with pytest.raises(WeightsError, match="is another file than it must be"):
        locate(hub.file(sha256="1" * 64))
    assert kept(cache) == []


def test_a_download_that_breaks_off_is_not_kept(hub, cache):
    with pytest.raises(WeightsError, match=f"broke off after {len(CONTENT)} of"):
        locate(hub.file(size=len(CONTENT) + 1))
    hub.length = len(CONTENT) + 1
    with pytest.raises(WeightsError, match=r"broke off after|cannot download"):
        locate(hub.file())
    assert kept(cache) == []


@pytest.mark.parametrize("file_sum", [SUM, None], ids=["pinned", "noted"])
def test_a_kept_file_that_changed_is_refused(hub, file_sum):
    file = hub.file(sha256=file_sum)
    path = locate(file)
    path.write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(WeightsError, match=r"model\.safetensors has changed .* delete it"):
        locate(file)


def test_a_file_put_there_by_hand_is_noted_and_may_not_change(hub, cache):
    path = cache / "net/model.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert locate(hub.file()) == path and locate(hub.file()) == path
    path.write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(WeightsError, match=r"model\.safetensors has changed"):
        locate(hub.file())
    assert hub.asked == []


def test_another_file_may_take_the_place_of_one_that_was_deleted(hub, cache):
    """As the message tells that refuses a changed file, also where there is no network."""
    file = hub.file()
    path = locate(file)
    path.unlink()
    hub.server.server_close()
    with pytest.raises(WeightsError, match="fetch it and put it"):
        locate(file)
    path.write_bytes(b"a later version")
    assert locate(file) == path
    path.write_bytes(b"one that came meanwhile")
    with pytest.raises(WeightsError, match=r"or delete (\S+) beside it if") as refused:
        locate(file)
    note = re.search(r"or delete (\S+) beside", str(refused.value))
    path.with_name(note[1]).unlink()
    assert locate(file) == path


def test_without_a_network_the_error_says_what_goes_where(hub, cache):
    file = hub.file()
    hub.server.server_close()
    message = rf"cannot download {file.url} .*put it at .*cache/net/model\.safetensors"
    with pytest.raises(WeightsError, match=message):
        locate(file)
    assert kept(cache) == []


def test_a_missing_address_is_no_crash(hub):
    with pytest.raises(WeightsError, match=r"cannot download .*404"):
        locate(hub.file("/elsewhere"))


def test_a_full_disk_is_not_blamed_on_the_network(hub, cache, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights, "_copy", full)
    with pytest.raises(OSError, match="No space left"):
        locate(hub.file())
    assert kept(cache) == []


def test_given_weights(hub, tmp_path):
    file = dataclasses.replace(hub.file(), sha256=SUM)
    own = tmp_path / "own.safetensors"
    own.write_bytes(b"of a model that somebody tuned")
    assert locate(file, str(own)) == own
    like_the_cache, flat = tmp_path / "all", tmp_path / "flat"
    (like_the_cache / "net").mkdir(parents=True)
    flat.mkdir()
    for path in (like_the_cache / file.name, flat / "model.safetensors"):
        path.write_bytes(b"")
    assert locate(file, str(like_the_cache)) == like_the_cache / file.name
    assert locate(file, str(flat)) == flat / "model.safetensors"
    assert hub.asked == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nowhere.safetensors", r"nowhere\.safetensors do not exist; give the file model"),
        ("rondom", r"did you mean 'random'\? Else give the file model"),
        ("empty", r"empty holds no net/model\.safetensors; http"),
        ("other.pt", r"other\.pt are no \*\.safetensors file; .* a folder"),
    ],
)
def test_given_weights_that_are_not_there(hub, tmp_path, monkeypatch, given, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other.pt").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=message):
        locate(hub.file(), given)


@pytest.mark.parametrize("given", [None, "given"])
def test_files_that_are_not_there(hub, cache, tmp_path, monkeypatch, given):
    monkeypatch.chdir(tmp_path)
    folder = Path(given) if given else cache
    files = [hub.file(), dataclasses.replace(hub.file(), name="net/config.json")]
    (folder / "net").mkdir(parents=True)
    assert weights.absent(files, given) == files
    (folder / files[1].name).touch()
    assert weights.absent(files, given) == files[:1]
    (folder / "model.safetensors").touch()  # beside, as a user may lay them; no place of the cache
    assert weights.absent(files, given) == ([] if given else files[:1])


def test_a_file_is_what_its_name_says(tmp_path):
    good = {
        "new.pt": _zipped(b"weights"),
        "old.pt": b"\x80\x02\x8a\nl\xfc",
        "one.safetensors": (2).to_bytes(8, "little") + b"{}",
        "other.json": b"whatever",
    }
    for name, content in good.items():
        (tmp_path / name).write_bytes(content)
        weights.check_form(tmp_path / name)
    page = b"<!DOCTYPE html><html>not found</html>"
    bad = {
        "page.pt": page,
        "empty.pt": b"",
        "cut.pt": _zipped(b"weights")[:-9],
        "page.safetensors": page,
        "cut.safetensors": (900).to_bytes(8, "little") + b"{}",
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        form = "PyTorch" if name.endswith(".pt") else "safetensors"
        with pytest.raises(WeightsError, match=rf"{name} is no {form} file, or is cut off \("):
            weights.check_form(tmp_path / name)


def _zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("data.pkl", content)
    return file.getvalue()


def test_published_files_are_of_one_form():
    files = [*weights.SAM2.values(), weights.DIRECTSAM, weights.EDGETAM, weights.EDGETAM_CONFIG]
    assert len({file.name for file in files}) == len(files)
    for file in files:
        assert file.url.startswith("https://")
        assert file.url.endswith(Path(file.name).name)
        assert file.sha256 is None or len(file.sha256) == 64
