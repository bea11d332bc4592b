"""The learned segmenters and trackers by name: their modules, and the weights that they need.

Those modules import torch, transformers or sam2 at their top, and are imported here alone, when
one is made: everything else works without those packages.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from tokenization import weights
from tokenization.learned import LearnedSettings
from tokenization.weights import WeightFile, WeightsError


class MissingBackend(ValueError):
    """A package that a learned backend needs is not installed; the message says how to get it."""


@dataclasses.dataclass(frozen=True)
class Backend:
    """A learned segmenter or tracker.

    Attributes:
      module: has `make(settings, paths)`, where `paths` are those of the files, None for random
        weights.
      files: of weights.
      packages: that running with them needs beside torch, asked for before they are downloaded.
    """

    module: str
    files: Callable[[LearnedSettings], tuple[WeightFile, ...]]
    packages: tuple[str, ...]


SEGMENTERS = {
    "directsam": Backend(
        "tokenization.segmenters.directsam", lambda _: (weights.DIRECTSAM,), ("transformers",)
    ),
    "sam2": Backend(
        "tokenization.segmenters.point_grid",
        lambda chosen: (weights.SAM2[chosen.sam2.size],),
        ("sam2",),
    ),
}
TRACKERS = {
    "sam2": Backend(
        "tokenization.trackers.sam2", lambda chosen: (weights.SAM2[chosen.sam2.size],), ("sam2",)
    ),
    "edgetam": Backend(
        "tokenization.trackers.edgetam",
        lambda _: (weights.EDGETAM, weights.EDGETAM_CONFIG),
        ("transformers", "timm"),
    ),
}


def make(backend: Backend, settings: LearnedSettings, given: str | None = None) -> Any:
    """The segmenter or tracker, on its device.

    Args:
      backend: of `SEGMENTERS` or `TRACKERS`.
      settings: of all of them.
      given: see `weights.locate`; or `random`, for tests and for measuring speed.

    Raises:
      MissingBackend: a package that it needs is not installed.
      WeightsError: its weights cannot be had, or are not those of `settings.sums`.
      ValueError: no such device.
    """
    module = _import(backend.module)
    if given == weights.RANDOM:
        return module.make(settings, None)
    paths = [weights.locate(file, given) for file in backend.files(settings)]
    for file, path in zip(backend.files(settings), paths, strict=True):
        if settings.sums:
            _checked(file.name, path, dict(settings.sums))
    return module.make(settings, paths)


def prepare(
    chosen: Iterable[Backend], settings: LearnedSettings, given: str | None = None
) -> LearnedSettings:
    """Fetches the weights of backends, and notes what they are in `sums` and `revisions`.

    Before workers start: they then find the files, and what is wrong shows at once.

    Raises:
      MissingBackend, WeightsError: as `make` does; also for other weights than `sums` names.
    """
    sums, revisions, wanted = {}, {}, dict(settings.sums)
    chosen = tuple(chosen)
    files = {file.name: file for backend in chosen for file in backend.files(settings)}
    for backend in chosen:
        _import("torch")
        for package in backend.packages if given != weights.RANDOM else ():
            if importlib.util.find_spec(package) is None:
                raise _missing(backend.module, package)
        for file in backend.files(settings):
            if given == weights.RANDOM:
                sums[file.name] = weights.RANDOM
            else:
                path = _located(file, list(files.values()), given)
                weights.check_form(path)
                sums[file.name] = _checked(file.name, path, wanted)
                if commit := weights.revision(path, sums[file.name]):
                    revisions[file.name] = commit
    return dataclasses.replace(
        settings,
        sums=tuple(sorted(sums.items())),
        revisions=tuple(sorted(revisions.items())),
    )


def _located(file: WeightFile, files: Sequence[WeightFile], given: str | None) -> Path:
    """See `weights.locate`; where a file cannot be had, the others that are not there are told."""
    try:
        return weights.locate(file, given)
    except WeightsError as error:
        others = [other for other in weights.absent(files, given) if other != file]
        if not others:
            raise
        folder = Path(given).expanduser() if given else weights.cache_folder()
        needed = ", ".join(f"{other.url} (at {folder / other.name})" for other in others)
        raise type(error)(f"{error}; also needed, and not there: {needed}") from error


def _checked(name: str, path: Path, wanted: Mapping[str, str]) -> str:
    """The file's sum, which is the wanted one if there is any."""
    found = weights.sha256(path)
    if wanted.get(name, found) != found:
        raise WeightsError(
            f"{path} is not the file that this dataset is made with: its SHA-256 is {found}, "
            f"not {wanted[name]}; copy that one here, or choose another --output"
        )
    return found


def resolve(settings: LearnedSettings) -> LearnedSettings:
    """With the precision that `auto` means on this machine: it decides what comes out.

    Raises:
      MissingBackend: torch is not installed.
    """
    precision = _import("tokenization.devices").precision(settings.running)
    running = dataclasses.replace(settings.running, precision=precision)
    return dataclasses.replace(settings, running=running)


def _import(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "tokenization":
            raise
        raise _missing(module, error.name) from error


def _missing(module: str, package: str | None) -> MissingBackend:
    return MissingBackend(
        f"{module} needs the package {package!r}, which is not installed: `make sam2` installs "
        "what the learned segmenters and trackers need; or choose segmenter 'classical' or "
        "'patches' and tracker 'flow', 'patches' or 'none', which need neither weights nor torch"
    )
