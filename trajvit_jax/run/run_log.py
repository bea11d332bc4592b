"""What a run tells: a progress line, metrics, the order of samples, a profile on request."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax

from trajvit_jax.data.unusable import BadRecord
from trajvit_jax.experiment import ExperimentSettings
from trajvit_jax.run.bad_records import BadRecords
from trajvit_jax.run.metric_log import MetricLog
from trajvit_jax.run.nonfinite import NonFiniteGuard
from trajvit_jax.run.profiling import Profiler
from trajvit_jax.run.progress import Progress
from trajvit_jax.run.sample_log import SampleLog
from trajvit_jax.run.throughput import Meter, Work, in_words, peak_flops


@dataclasses.dataclass
class Clock:
    """What a run has done, over all its parts; it is in every checkpoint.

    Attributes:
      seconds: of training.
      videos: that were read, as often as they were.
      tokens: likewise.
      skipped: steps that changed nothing because a number was not finite.
      streak: of these, how many up to the last step followed one another.
      bad_records: of the videos, those that could not be used.
    """

    seconds: float = 0.0
    videos: int = 0
    tokens: int = 0
    skipped: int = 0
    streak: int = 0
    bad_records: int = 0

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Clock:
        """From a checkpoint, which another version may have written: what is known of it."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    def values(self) -> dict[str, float]:
        """As JSON."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class InFlight:
    """A step that the devices may still be computing.

    Attributes:
      number: of the step, counted from 1.
      stream: that it belongs to.
      ids: of the records that this process read for it.
      measures: of the step.
      waited: seconds that it waited for data.
      compilations: programs of the step so far.
      bad: records, of those that this process read, that could not be used.
    """

    number: int
    stream: str
    ids: tuple[str, ...]
    measures: dict[str, jax.Array]
    waited: float
    compilations: int
    bad: tuple[BadRecord, ...] = ()


_LOG = logging.getLogger(__name__)
_RESULTS = "eval/"  # what names of an evaluation's results begin with


class RunLog:
    """The files that a run writes beside its checkpoints; use as a context.

    Process 0 writes for all of them; each notes the samples that it read itself.

    Args:
      workdir: of the run.
      settings: of the run.
      first: the step it goes on from; what a lost run wrote of later steps is dropped.
      evaluates: whether it will be evaluated after that step; what a lost run wrote of that is
        dropped, too.
    """

    def __init__(
        self, workdir: Path, settings: ExperimentSettings, *, first: int, evaluates: bool = False
    ):
        self._workdir, self._settings = workdir, settings
        self._first, self._evaluates = first, evaluates
        self._metrics: MetricLog | None = None
        self._samples: SampleLog | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> RunLog:
        process, settings = jax.process_index(), self._settings
        if process == 0:
            log = MetricLog(
                self._workdir,
                step=self._first,
                without=_RESULTS if self._evaluates else "",
                wandb=settings.wandb,
            )
            self._metrics = self._stack.enter_context(log)
        if settings.log_samples:
            samples = SampleLog(self._workdir, step=self._first, process=process)
            self._samples = self._stack.enter_context(samples)
        self.profiler = self._stack.enter_context(Profiler(settings.profile, self._workdir))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values that stand after `step` updates."""
        if self._metrics is not None:
            self._metrics.write(step, values)

    def results(self, step: int, values: Mapping[str, float]) -> None:
        """Writes what an evaluation found."""
        self.write(step, {f"{_RESULTS}{name}": value for name, value in values.items()})

    def note_samples(self, step: int, ids: tuple[str, ...]) -> None:
        """Notes what this process read for a step, where that is asked for."""
        if self._samples is not None:
            self._samples.write(step, ids)

    def median(self, name: str) -> float:
        """Of what was logged under a name since step 0; NaN where nothing was."""
        values = [] if self._metrics is None else self._metrics.values(name)
        return statistics.median(values) if values else math.nan

    @contextlib.contextmanager
    def watch(self, name: str, clock: Clock, works: Mapping[str, Work]) -> Iterator[StepWatch]:
        """Watches steps, with a progress line of this name.

        Args:
          name: of the model.
          clock: is moved on.
          works: what a step of each stream does.
        """
        bar = Progress(
            initial=self._first,
            total=self._settings.steps,
            desc=f"train {name}",
            unit="step",
            mininterval=1,
            disable=jax.process_index() > 0,
        )
        with bar:
            if self._first < self._settings.steps:
                bar.set_postfix_str("compiling the first step")
            yield StepWatch(self, bar, clock, works, self._settings, self._workdir)


class StepWatch:
    """Reads steps in order, one behind the devices: they never wait for it.

    The first steps of a process compile programs: the rates of the log leave them out, as the
    time left of the progress line does.

    Attributes:
      finished: number of the last step that was read; 0 = none yet in this process.
    """

    def __init__(
        self,
        log: RunLog,
        bar: Progress,
        clock: Clock,
        works: Mapping[str, Work],
        settings: ExperimentSettings,
        workdir: Path,
    ):
        """Args: see `RunLog.watch`, whose settings and workdir these are."""
        self.finished = 0
        self._log, self._bar, self._clock, self._works = log, bar, clock, works
        self._settings, self._meter = settings, Meter(peak_flops())
        process = jax.process_index()
        self._guard = NonFiniteGuard(
            workdir, limit=settings.max_skipped, process=process, streak=clock.streak
        )
        self._bad = BadRecords(workdir, share=settings.data.max_bad, process=process)
        self._seconds: list[float] = []
        self._rates: dict[str, str] = {}
        self._compiled: set[str] = set()
        self._since = time.perf_counter()

    def read(self, step: InFlight) -> None:
        """Waits for a step and tells of it.

        Raises:
          FloatingPointError: too many steps in a row that are not finite.
          ComesAgain: too many records that cannot be used.
        """
        values = {name: float(value) for name, value in jax.device_get(step.measures).items()}
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        compiled = self._count(step, values, seconds)
        values |= {
            "bad_records": self._clock.bad_records,
            "compilations": step.compilations,
        }
        bad = {"bad": self._clock.bad_records} if self._clock.bad_records else {}
        self._bar.set_postfix(loss=f"{values['loss']:.3f}", **bad, **self._rates, refresh=False)
        if compiled:
            self._bar.leave_out(seconds, steps=1)
        else:
            self._bar.update()
        self._log.note_samples(step.number, step.ids)
        self._bad.note(step.number, step.bad)
        settings = self._settings
        if step.number % settings.log_every == 0 or step.number == settings.steps:
            if self._seconds:
                values |= {"seconds_a_step": statistics.median(self._seconds)}
                rates = self._meter.read()
                values |= rates
                self._rates, self._seconds = in_words(rates), []
            self._log.write(step.number, values)
        elif values["skipped"]:
            self._log.write(step.number, values)
        self._judge(step, values)
        self.finished = step.number

    def _judge(self, step: InFlight, values: Mapping[str, float]) -> None:
        """Whether the run should go on."""
        told = ("loss", "grad_norm", "temperature")
        measures = {name: values[name] for name in told if name in values}
        self._guard.add(step.number, step.ids, measures, finite=not values["skipped"])
        self._clock.streak = self._guard.streak
        self._bad.check(
            step.number,
            absent=int(values["absent"]),
            batch=self._works[step.stream].videos,
            bad=self._clock.bad_records,
            read=self._clock.videos,
        )

    def _count(self, step: InFlight, values: Mapping[str, float], seconds: float) -> bool:
        """Adds a step to the clock; whether its time is that of a compilation, too."""
        work, tokens = self._works[step.stream], int(values["tokens"])
        self._clock.seconds += seconds
        self._clock.videos += work.videos
        self._clock.tokens += tokens
        self._clock.skipped += int(values["skipped"])
        self._clock.bad_records += int(values["absent"])
        if step.stream in self._compiled:
            self._seconds.append(seconds)
            self._meter.add(work, tokens=tokens, seconds=seconds, waited=step.waited)
            return False
        _LOG.info("first step of stream %r, compilation included: %.1f s", step.stream, seconds)
        self._compiled.add(step.stream)
        return True

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What is done within this is no part of a step's time."""
        before = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - before
            self._since += seconds
            self._bar.leave_out(seconds)
