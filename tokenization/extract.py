"""Videos -> records of their trajectories.

  python -m tokenization.extract --input="clips/*.mp4" --output=records
  python -m tokenization.extract --input=train.jsonl --output=records --split=train
  python -m tokenization.extract --input=train.jsonl --output=records \\
      --config=configs/tokenization/classical.py --workers=8
  python -m tokenization.extract --input=train.jsonl --output=records \\
      --config=configs/tokenization/paper.py
  python -m tokenization.extract --input=train.jsonl --output=records --engine=ray --address=auto

Work is cut into shards of `shard_size` entries, in the order of the input. A finished shard is
skipped when the command is run again; one that is new, half-done, or whose entries or files
(size and time of last change) changed is done (again): append new videos at the end of a manifest,
then only they are. Of a shard that is not finished, an interrupted or killed run keeps the videos
that are.
A run that would lose finished videos is refused. With --overwrite it removes them, and where
settings changed, those of all splits: one folder holds records of one kind.

A video that cannot be read, of which --tries workers died, or that took longer than --time_limit
goes to `quarantine.jsonl` with the reason and stops nothing; it is tried again when its file
changes, or with --retry_quarantined. --in_a_row videos that fail for one reason end the run: then
it is the disk or the device.

A process keeps the sampled frames of one video, not the others: 16 frames without networks take
less than 512 MB, for a video of any length and up to 3840x2160.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags

from tokenization import command, manifest, missing, pipeline
from tokenization.engines import choice
from tokenization.engines.crew import Patience
from tokenization.engines.devices import visible_gpus
from tokenization.engines.local import LocalEngine
from tokenization.engines.protocol import Engine, WorkerUnfit
from tokenization.frames_asked import asking_for
from tokenization.manifest import Entry
from tokenization.pipeline import PipelineSettings
from tokenization.recorder import ExtractSettings, Outcome, Recorder, Tokenizer
from tokenization.shard_files import SHARD_INFO
from tokenization.splits import Job, OutputError, build_split
from tokenization.summary import Summary
from tokenization.weights import CACHE_VARIABLE, DownloadFailed, cache_folder
from trajvit_jax import config as configs

__all__ = ["ExtractSettings", "OutputError", "Summary", "extract"]

_TOGETHER = 8  # videos that networks get at once: 128 frames


def extract(
    entries: Sequence[Entry],
    output: str | os.PathLike[str],
    settings: ExtractSettings | None = None,
    *,
    split: str = "train",
    engine: Engine | None = None,
    patience: Patience | None = None,
    overwrite: bool = False,
    retry_quarantined: bool = False,
    weights: str | None = None,
    build: Callable[[PipelineSettings], Tokenizer] | None = None,
    together: int | None = None,
) -> Summary:
    """Tokenizes videos into a split of a dataset of records.

    Args:
      entries: the videos, as `manifest.read_entries` gives them.
      output: folder of the dataset; what is finished in it is kept.
      settings: see `ExtractSettings`.
      split: name of the split.
      engine: where the work is done; None = processes of this machine, one a GPU where the
        settings name a network, else one a core.
      patience: when a video is given up.
      overwrite: remove records of other settings, of all splits, and videos that are not among
        the entries or whose files are gone, instead of raising.
      retry_quarantined: try quarantined entries again.
      weights: of networks, as `backends.make` takes them. What they are is noted with the records,
        as the command does: those of other weights never get into the same dataset.
      build: makes the tokenizer, once in each worker; picklable. None = `pipeline.build`. What it
        is made of is its own matter: where that is not in the settings, nothing tells it.
      together: videos that a worker tokenizes at once; None = 8 for networks, else 1.

    Raises:
      OutputError, FolderInUse, ValueError, EngineError, OSError: see `splits.build_split`.
      ValueError: paths in place of entries, or `weights` for a tokenizer that `build` makes.
      MissingBackend, WeightsError: the settings name a network; see `pipeline.prepare`.
    """
    if isinstance(entries, str) or not all(isinstance(entry, Entry) for entry in entries):
        raise ValueError(
            "extract takes entries, not paths: extract(read_entries('clips/*.mp4'), ...), with "
            "tokenization.manifest.read_entries"
        )
    settings = settings or ExtractSettings()
    if build is None:
        chosen = pipeline.prepare(settings.pipeline, weights)
        build = functools.partial(pipeline.build, weights=weights)
    elif weights is None:
        chosen = pipeline.resolve(settings.pipeline)
    else:
        raise ValueError("extract takes weights or build: a tokenizer of your own has its weights")
    settings = dataclasses.replace(settings, pipeline=chosen)
    noted = {**dataclasses.asdict(settings), "pipeline": pipeline.noted(settings.pipeline)}
    if together is None:
        together = _TOGETHER if _wants_gpu(settings.pipeline) else 1
    make = functools.partial(_recorder, settings, build)
    return build_split(
        entries,
        output,
        Job(settings, make, together=together, noted=noted),
        engine=engine or LocalEngine(gpus=visible_gpus() if _wants_gpu(settings.pipeline) else ()),
        split=split,
        patience=patience,
        overwrite=overwrite,
        retry_quarantined=retry_quarantined,
    )


def _recorder(
    settings: ExtractSettings, build: Callable[[PipelineSettings], Tokenizer]
) -> Callable[[Sequence[Entry]], list[Outcome]]:
    try:
        return Recorder(settings, build)
    except DownloadFailed as error:  # the network of one machine; others may have theirs
        raise WorkerUnfit(str(error)) from error


def _wants_gpu(settings: PipelineSettings) -> bool:
    """Whether a part of the pipeline is a network; the embedded ones know only the CPU."""
    return bool(pipeline.learned_parts(settings))


def define_flags() -> None:
    """Defines the command's flags; not at import, where they would clash with other commands."""
    command.define_flags()
    flags.adopt_module_key_flags(command)  # or --help would not name them
    flags.DEFINE_string(
        "config", None, "Settings, for example configs/tokenization/classical.py; else defaults."
    )
    flags.DEFINE_string(
        "weights",
        None,
        "Of networks, as configs/tokenization/paper.py names: a file, or a folder that holds the "
        "files under their published names. By default they are downloaded once, into "
        f"{cache_folder()} (set {CACHE_VARIABLE} for another folder). 'random' = "
        "untrained ones, to try things out: DirectSAM may then find no segment at all.",
    )
    flags.DEFINE_integer(
        "together",
        None,
        "Videos that a worker tokenizes at once; by default 8 where the config names a network.",
        1,
    )


def main(argv: Sequence[str]) -> int:
    """The command; returns its exit code."""
    return command.finish(argv, _extract)


def _extract() -> Summary:
    flag = flags.FLAGS
    settings = ExtractSettings()
    if flag.config:
        settings = configs.read(ExtractSettings, flag.config, "tokenization.extract")
    _check_output(flag.input, flag.output)
    if flag.weights and not pipeline.learned_parts(settings.pipeline):
        parts = f"{settings.pipeline.segmenter} and {settings.pipeline.tracker}"
        _warn(f"--weights={flag.weights} is not used: {parts} need none")
    listed = missing.read_beside(flag.input)
    summary = extract(
        manifest.read_entries(flag.input),
        flag.output,
        settings,
        split=flag.split,
        engine=choice.chosen_engine(wants_gpu=_wants_gpu(settings.pipeline)),
        patience=choice.chosen_patience(),
        overwrite=flag.overwrite,
        retry_quarantined=flag.retry_quarantined,
        weights=flag.weights,
        together=flag.together,
    )
    missing.keep(listed, Path(flag.output), flag.split)
    return dataclasses.replace(summary, asking=asking_for(flag.config))


def _check_output(videos: str, output: str) -> None:
    """Raises OutputError if records would go among the videos, unless they are there already."""
    folder, records = Path(videos).resolve(), Path(output).resolve()
    if not folder.is_dir():
        return
    if records == folder and not (records / SHARD_INFO).is_dir():
        raise OutputError(
            f"--output={output} is the folder of the videos itself; give the records another one, "
            f"for example --output={folder.name}-records"
        )
    if folder in records.parents:
        _warn(f"--output={output} is inside the folder of the videos")


def _warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr)


if __name__ == "__main__":
    command.start(define_flags, main)
