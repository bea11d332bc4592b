"""Files of published weights: given by the user, or downloaded once, checked and kept.

Nothing in them is ever run: PyTorch files are read with `weights_only=True`, others are
safetensors.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import http.client
import json
import os
import re
import urllib.error
import urllib.request
import zipfile
from collections.abc import Mapping, Sequence
from http.client import HTTPMessage
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tokenization.files import replacing, write_text
from tokenization.folder_lock import held

RANDOM = "random"
CACHE_VARIABLE = "TRAJVIT_CACHE"

_BLOCK = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


class WeightsError(ValueError):
    """Weights that cannot be had or be trusted; the message names the file and what to do."""


class DownloadFailed(OSError, WeightsError):
    """The network or its other end failed: asked again, the same may go well."""


@dataclasses.dataclass(frozen=True)
class WeightFile:
    """A published file.

    Attributes:
      name: below the cache folder, or below a folder that the user gives.
      url: where it is.
      sha256: that it must have; None = not known beforehand. Then it is checked against what
        its server says, where that is a SHA-256, and what came, or was put there by hand, is
        noted beside it, for every later use to be checked against.
      size: in bytes; None = as its server says.
    """

    name: str
    url: str
    sha256: str | None = None
    size: int | None = None


_SAM2 = "https://dl.fbaipublicfiles.com/segment_anything_2/092824/"
_HUB = "https://huggingface.co/"

# Checkpoints in the official format (github.com/facebookresearch/sam2). The sums are those that
# public users of these files have pinned, independently of each other.
SAM2 = {
    "tiny": WeightFile(
        "sam2.1_hiera_tiny.pt",
        f"{_SAM2}sam2.1_hiera_tiny.pt",
        "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
        156_008_466,
    ),
    "small": WeightFile(
        "sam2.1_hiera_small.pt",
        f"{_SAM2}sam2.1_hiera_small.pt",
        "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
        184_416_285,
    ),
    "base_plus": WeightFile(
        "sam2.1_hiera_base_plus.pt",
        f"{_SAM2}sam2.1_hiera_base_plus.pt",
        "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
        323_606_802,
    ),
    "large": WeightFile(
        "sam2.1_hiera_large.pt",
        f"{_SAM2}sam2.1_hiera_large.pt",
        "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
        898_083_611,
    ),
}

# Not pinned: the file was not at hand when this was written, nor a page that gives its sum, or the
# commit of its repository in full, as the hub asks for it. So `main` is asked for, what came is
# noted (`WeightFile.sha256`), and records name its sum and commit. `LearnedSettings.sums` pins one.
DIRECTSAM = WeightFile(
    "DirectSAM-1800px-0424/model.safetensors",
    f"{_HUB}chendelong/DirectSAM-1800px-0424/resolve/main/model.safetensors",
)

_EDGETAM = f"{_HUB}yonigozlan/EdgeTAM-hf/resolve/c266ce53b3fc00f0f495b583f6a116c4e57f53bb/"
EDGETAM = WeightFile(
    "EdgeTAM-hf/model.safetensors",
    f"{_EDGETAM}model.safetensors",
    "8858f8e4757b0b96dab8763f296ecffd845efbbbf698f64163cfa20a63d5fff4",
    55_912_824,
)
EDGETAM_CONFIG = WeightFile(
    "EdgeTAM-hf/config.json",
    f"{_EDGETAM}config.json",
    "0827d003132f67efc496928f4fe5dd4125fcac518950c4eabe1d1f85e245c82a",
)


def cache_folder() -> Path:
    """$TRAJVIT_CACHE, else ~/.cache/trajvit_jax."""
    return Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/trajvit_jax").expanduser()


def locate(file: WeightFile, given: str | None = None) -> Path:
    """The file on this machine, downloaded if need be.

    Args:
      file: what is wanted.
      given: a folder that holds it, or a file that is used in its place, whatever it is; None =
        the cache folder.

    Raises:
      WeightsError: it is not where it should be, it cannot be downloaded, or it is another file
        than it must be.
    """
    if given:
        return _given(file, Path(given).expanduser())
    path = cache_folder() / file.name
    if not path.is_file():
        # Of several workers of a machine one downloads, and the others wait for it.
        with held(path.with_name(f".{path.name}.lock")):
            if not path.is_file():
                # Whoever deleted the file did so to have another one, which its note would refuse.
                _note(path).unlink(missing_ok=True)
                _download(file, path)
                return path
    _check(file, path)
    return path


def sha256(path: str | os.PathLike[str]) -> str:
    """Of a file's content."""
    with Path(path).open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def revision(path: str | os.PathLike[str], content: str) -> str | None:
    """The commit of the hub that a file was downloaded from, as noted beside it.

    Args:
      path: the file.
      content: its SHA-256: what is noted of other content is nothing of this file.
    """
    try:
        noted = json.loads(_note(Path(path)).read_text("utf-8"))
    except (OSError, ValueError):  # none, or a file of somebody else's with that name
        return None
    if not isinstance(noted, dict) or noted.get("sha256") != content:
        return None
    return noted.get("commit")


def absent(files: Sequence[WeightFile], given: str | None = None) -> list[WeightFile]:
    """Those of the files that are not there yet; see `locate`."""
    folder = Path(given).expanduser() if given else cache_folder()
    if given and not folder.is_dir():
        return []  # one file in the place of one
    return [file for file in files if not any(p.is_file() for p in _places(file, folder, given))]


def _places(file: WeightFile, folder: Path, given: str | None) -> list[Path]:
    """Where a folder may hold a file: as the cache does, or flat if it is the user's own."""
    return [folder / name for name in (file.name, Path(file.name).name)[: 2 if given else 1]]


def check_form(path: Path) -> None:
    """Whether a file is what its suffix says, by its frame: nothing in it is read or run.

    Raises:
      WeightsError: it is something else, as the page or the pointer of a failed download, or it is
        cut off.
    """
    known = {".pt": ("PyTorch", _is_torch), ".safetensors": ("safetensors", _is_safetensors)}
    form, is_one = known.get(path.suffix, ("", lambda _: True))
    if not is_one(path):
        with path.open("rb") as opened:
            head = opened.read(24)
        raise WeightsError(
            f"{path} is no {form} file, or is cut off ({path.stat().st_size} bytes, which begin "
            f"with {head!r}); download it again"
        )


def _is_torch(path: Path) -> bool:
    with path.open("rb") as opened:
        return zipfile.is_zipfile(path) or opened.read(2) == b"\x80\x02"  # until PyTorch 1.6


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        return opened.read(1) == b"{" and 8 + length <= path.stat().st_size


def _given(file: WeightFile, path: Path) -> Path:
    if path.is_dir():
        for inside in _places(file, path, str(path)):
            if inside.is_file():
                return inside
        raise WeightsError(f"{path} holds no {file.name}; {file.url} is where it is published")
    if not path.is_file():
        meant = difflib.get_close_matches(str(path), [RANDOM], n=1)
        hint = f"did you mean {RANDOM!r}? Else " if meant else ""
        raise WeightsError(
            f"weights {path} do not exist; {hint}give the file {Path(file.name).name}, a folder "
            f"that holds it, or nothing, to download {file.url}"
        )
    if path.suffix != Path(file.name).suffix:
        raise WeightsError(
            f"weights {path} are no *{Path(file.name).suffix} file; where several files are "
            f"needed, give a folder that holds them, this one as {file.name}"
        )
    return path


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.source.json")


def _write_note(path: Path, source: Mapping[str, str | None]) -> None:
    write_text(_note(path), json.dumps(source, indent=2) + "\n")


def _check(file: WeightFile, path: Path) -> None:
    """Raises WeightsError if a kept file is not what it must be, or was when it came."""
    wanted, instead = file.sha256, "pass another one as --weights"
    if wanted is None:
        instead = f"delete {_note(path).name} beside it if it is meant to be that one"
        if not _note(path).is_file():
            with contextlib.suppress(OSError):  # a cache that only others may write
                _write_note(path, {"sha256": sha256(path)})
            return
        wanted = json.loads(_note(path).read_text("utf-8")).get("sha256")
    if wanted is not None and (found := sha256(path)) != wanted:
        raise WeightsError(
            f"{path} has changed or is another file: its SHA-256 is {found}, it must be {wanted}; "
            f"delete it to download it again, or {instead}"
        )


def _download(file: WeightFile, path: Path) -> None:
    redirects = _Redirects()
    request = urllib.request.Request(file.url, headers={"User-Agent": "trajvit_jax"})
    try:
        with urllib.request.build_opener(redirects).open(request, timeout=60) as answer:
            redirects.seen.append(answer.headers)
            size = file.size or _length(answer.headers)
            with replacing(path) as partial:
                found = _copy(answer, partial, Path(file.name).name, size)
                _check_download(file, found, partial.stat().st_size, size, redirects.seen)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and not _is_network(error):
            raise
        raise DownloadFailed(
            f"cannot download {file.url} ({error}); where there is a network, fetch it and put it "
            f"at {path}, or pass its folder as --weights=PATH"
        ) from error
    commit = _header(redirects.seen, "X-Repo-Commit")
    _write_note(path, {"url": file.url, "sha256": found, "commit": commit})


def _is_network(error: OSError) -> bool:
    """A full disk is no trouble of the network, but an OSError as well."""
    return isinstance(error, (urllib.error.URLError, ConnectionError, TimeoutError))


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Keeps the headers on the way: a hub tells a file's sum before it points to a store."""

    def __init__(self) -> None:
        self.seen: list[HTTPMessage] = []

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        self.seen.append(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _header(seen: list[HTTPMessage], name: str) -> str | None:
    return next((headers[name] for headers in seen if headers[name]), None)


def _length(headers: HTTPMessage) -> int | None:
    return int(headers["Content-Length"]) if headers["Content-Length"] else None


def _copy(answer: http.client.HTTPResponse, partial: Path, name: str, size: int | None) -> str:
    digest = hashlib.sha256()
    bar = tqdm(desc=name, total=size, unit="B", unit_scale=True, mininterval=1, dynamic_ncols=True)
    with partial.open("wb") as out, bar:
        while block := answer.read(_BLOCK):
            digest.update(block)
            out.write(block)
            bar.update(len(block))
    return digest.hexdigest()


def _check_download(
    file: WeightFile, found: str, came: int, size: int | None, seen: list[HTTPMessage]
) -> None:
    if size is not None and came != size:
        raise DownloadFailed(f"{file.url} broke off after {came} of {size} bytes; try again")
    wanted = file.sha256
    if wanted is None:
        linked = (_header(seen, "X-Linked-Etag") or "").strip('"')
        wanted = linked if _SHA256.fullmatch(linked) else None
    if wanted is not None and found != wanted:
        raise WeightsError(
            f"{file.url} is another file than it must be: its SHA-256 is {found}, not {wanted}; "
            "nothing was kept"
        )
