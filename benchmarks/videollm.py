"""A tiny VideoLLM on the procedural world: does the connector alone teach text to see?

  1. trains a tiny Llama on scenes written as text, with questions and answers: it sees no clip;
  2. asks it about held-out scenes in words, and stops where it knows too little of them;
  3. renders clips and cuts them into trajectories (configs/videollm/world.py);
  4. trains TrajViT and ViT3D on their captions, by the demo's recipe on larger frames, and tells
     by a linear probe what each named object's token knows;
  5. freezes both halves, and trains the linear connector between them on conversations about the
     clips;
  6. asks about held-out clips, and asks the same questions about other clips.

Records and finished runs are kept in --output, so that an interrupted benchmark goes on; so are
the seconds that each stage took, of all runs together.

  python -m benchmarks.videollm                   # meant to take under an hour on two cores
  python -m benchmarks.videollm --models=trajvit  # one of the two
  python -m benchmarks.videollm --quick           # few clips and steps: it runs
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from benchmarks.parts.arguments import some_of
from benchmarks.parts.command import parser_of, run_command, tell_bounds, write_json
from benchmarks.parts.kept_clock import StageClock
from benchmarks.parts.videollm_halves import ask_in_words, probe
from benchmarks.parts.videollm_run import (
    Score,
    eyes_config,
    known_of,
    make_eyes,
    score,
    teach,
    tokens_read,
    write_talks,
)
from benchmarks.parts.videollm_text import TextSettings
from benchmarks.parts.videollm_text import train as train_text
from tokenization.engines.inline import InlineEngine
from tokenization.world.scenes import WorldSettings
from trajvit_jax import config as configs
from trajvit_jax.data.source import open_records
from trajvit_jax.demo.chain import DataSettings, make_records
from trajvit_jax.demo.page import TITLES
from trajvit_jax.llm import saved as folders
from trajvit_jax.llm.costs import prefill_flops
from trajvit_jax.models.costs import cost_of

MODELS = ("trajvit", "vit3d")
_QUESTION = 20  # tokens of a question with its marks
_HOUR = 3600.0  # seconds
_PROBED = 800  # training clips that the probe is fitted to
_BOUNDS = {"colour": 90.0, "shape": 90.0, "direction": 70.0}
_LOG = logging.getLogger("benchmarks.videollm")


class NotLearned(Exception):
    """The language model cannot answer about scenes in words, let alone about clips."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much is made of everything.

    Attributes:
      train: clips, as `test`.
      eyes_steps: of the video encoders.
      image_size: pixels a side that they see.
      text: the language model.
      scenes: held-out ones that it is asked about in words.
      floor: of its right answers there, in percent.
      steps: of the connectors.
      most: questions of a kind, in words and about clips.
      batch: clips and conversations at once.
      seed: of everything.
      debug: encoders of few layers, and programs that compile quickly and run slowly; clips are
        cut in this process.
    """

    train: int = 2400
    test: int = 400
    eyes_steps: int = 800
    image_size: int = 96
    text: TextSettings = TextSettings()
    scenes: int = 800
    floor: float = 97.0
    steps: int = 800
    most: int = 240
    batch: int = 32
    seed: int = 0
    debug: bool = False


QUICK = Settings(
    train=16,
    test=8,
    eyes_steps=2,
    image_size=64,
    text=TextSettings(width=32, depth=1, mlp=64, scenes=40, steps=3, rows=2),
    scenes=40,
    floor=0.0,
    steps=2,
    most=24,
    batch=8,
    debug=True,
)


@dataclasses.dataclass(frozen=True)
class Row:
    """One pair of eyes.

    Attributes:
      model: of the eyes.
      scores: of its answers.
      words: right answers of the language model about scenes in words, by kind, in percent.
      probed: what a linear map reads off the eyes' tokens, in percent.
      tokens: of a clip that the language model reads.
      prefill: FLOPs of reading a clip and a question, by formula: eyes and language model.
      llm_prefill: the language model's part of it.
      seconds: of a training step of the connector.
      retrieval: R@5 of the eyes on captions, text to video, in percent.
    """

    model: str
    scores: tuple[Score, ...]
    words: Mapping[str, float]
    probed: Mapping[str, float]
    tokens: float
    prefill: float
    llm_prefill: float
    seconds: float
    retrieval: float


def measure(
    output: Path, models: Sequence[str], settings: Settings, clock: StageClock
) -> list[Row]:
    """Makes what is missing, and scores each model.

    Raises:
      NotLearned: as the class says.
      ValueError: what is kept was made with other settings.
    """
    config = f"configs/videollm/world.py:train={settings.train},test={settings.test}"
    data = configs.to_settings(DataSettings, configs.load(config))
    records, text, talks = output / "records", output / "text", output / "talks.json"
    # What needs no clip first: it may end the run.
    with clock.stage("language model"):
        train_text(text, data.world, settings.text)
    with clock.stage("in words", again=True):
        words = words_known(text, data.world, settings)
    with clock.stage("clips"):
        # Processes of few clips take longer to start than to work.
        engine = InlineEngine() if settings.debug else None
        make_records(config, world=output / "world", records=records, engine=engine)
        known, own = (
            known_of(split, count, data.world, data.seed)
            for split, count in (("test", settings.test), ("train", settings.train))
        )
        write_talks(talks, own, each=3, seed=settings.seed)
    shown, held_out = (open_records(records, split) for split in ("train", "test"))
    rows = []
    for model in models:
        eyes, workdir = output / f"eyes-{model}", output / f"llm-{model}"
        recipe = eyes_config(
            model,
            records,
            clips=settings.train,
            batch=settings.batch,
            steps=settings.eyes_steps,
            frames=data.world.frames,
            image_size=settings.image_size,
            seed=settings.seed,
            debug=settings.debug,
        )
        with clock.stage(f"eyes {model}"):
            retrieval = make_eyes(recipe, eyes)
        with clock.stage(f"probe {model}", again=True):
            fitted = (own, itertools.islice(shown, _PROBED))
            probed = probe(eyes, output / "world", fitted, (known, held_out), batch=settings.batch)
        told = ", ".join(f"{kind} {share:.1f}%" for kind, share in probed.items())
        _LOG.info("%s: a linear map reads off an object's token: %s", TITLES[model], told)
        with clock.stage(f"connector {model}"):
            experiment, results = teach(
                eyes,
                text,
                records,
                talks,
                workdir,
                clips=settings.train,
                batch=settings.batch,
                steps=settings.steps,
                seed=settings.seed,
            )
        with clock.stage(f"scores {model}", again=True):
            saved = folders.load(workdir)
            folders.save(saved, output / f"videollm-{model}", tokenizer=str(text))
            own_sizes = {"most": settings.most, "batch": settings.batch}
            scores = score(known, held_out, saved, seed=settings.seed, **own_sizes)
            tokens = tokens_read(held_out, saved)
        read = prefill_flops(saved.model.settings.llm, round(tokens) + _QUESTION)
        seen = cost_of(experiment.model)
        rows.append(
            Row(
                model=model,
                scores=tuple(scores),
                words=words,
                probed=probed,
                tokens=tokens,
                prefill=float(read + (seen.total or seen.transformer)),
                llm_prefill=float(read),
                seconds=results["seconds_a_step"],
                retrieval=retrieval["txt2vid_r5"],
            )
        )
    return rows


def words_known(text: Path, world: WorldSettings, settings: Settings) -> dict[str, float]:
    """The language model's right answers about scenes in words, by kind, in percent.

    Raises:
      NotLearned: fewer than `settings.floor` of a kind that answers about clips are judged by.
    """
    found = ask_in_words(text, world, count=settings.scenes, most=settings.most, seed=settings.seed)
    shares = {kind: 100 * right / count for kind, (right, count) in found.items()}
    told = ", ".join(f"{kind} {share:.1f}%" for kind, share in shares.items())
    _LOG.info("the language model about held-out scenes in words: %s", told)
    short = [kind for kind in _BOUNDS if shares.get(kind, 0.0) < settings.floor]
    if short:
        raise NotLearned(
            f"the language model answers too little about scenes in words ({told}; at least "
            f"{settings.floor:.0f}% of {', '.join(short)} is needed): no connector makes up for "
            f"that. Raise text.steps or text.scenes of benchmarks.videollm, and delete {text}"
        )
    return shares


def table(rows: Sequence[Row]) -> str:
    """All rows for a person to read."""
    lines = []
    for row in rows:
        lines.append(
            f"{TITLES[row.model]}: {row.tokens:.1f} tokens a clip, prefill "
            f"{row.prefill / 1e6:.0f} MFLOP ({row.llm_prefill / 1e6:.0f} of them the language "
            f"model's), {row.seconds:.2f} s a step, R@5 of its eyes {row.retrieval:.1f}"
        )
        lines += [
            f"  {one.kind:9} {one.right:5.1f}% ({one.low:.1f} to {one.high:.1f}) of {one.asked}; "
            f"shuffled {one.shuffled:.1f}%, chance {one.chance:.1f}%"
            + (f"; in words {row.words[one.kind]:.1f}%" if one.kind in row.words else "")
            + (f"; probe {row.probed[one.kind]:.1f}%" if one.kind in row.probed else "")
            for one in row.scores
        ]
    return "\n".join(lines)


def verdicts(rows: Sequence[Row], seconds: float) -> dict[str, bool]:
    """The bounds, and whether each holds: of TrajViT, and of the seconds that all took."""
    found = {f"in under {_HOUR / 60:.0f} minutes": seconds < _HOUR}
    for row in rows:
        if row.model != "trajvit":
            continue
        for one in row.scores:
            if one.kind in _BOUNDS:
                bound = _BOUNDS[one.kind]
                found[f"{one.kind} at least {bound:.0f}%"] = one.right >= bound
            near = one.chance + 300 * (one.chance / 100 * (1 - one.chance / 100) / one.asked) ** 0.5
            found[f"{one.kind} of shuffled clips at chance"] = one.shuffled <= near
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; returns 0 if the bounds hold."""
    parser = parser_of(__file__, __doc__, quick="few clips, steps and questions")
    parser.add_argument(
        "--models", type=some_of(MODELS), default=MODELS, help=f"({','.join(MODELS)})"
    )
    parser.add_argument("--output", type=Path, help="folder of records and runs")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    for ours in ("trajvit_jax", "benchmarks"):  # libraries tell of every file
        logging.getLogger(ours).setLevel(logging.INFO)
    settings = QUICK if options.quick else Settings()
    if settings.debug:
        jax.config.update("jax_disable_most_optimizations", True)
    name = "videollm_quick" if options.quick else "videollm"
    output = options.output or Path("runs") / name
    clock = StageClock(output / "seconds.json")
    try:
        rows = measure(output, options.models, settings, clock)
    except NotLearned as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(rows))
    seconds = sum(clock.seconds.values())
    told = ", ".join(f"{name} {spent:.0f}" for name, spent in clock.seconds.items())
    print(f"in {seconds / 60:.1f} minutes, interrupted runs included; seconds: {told}")
    values = {"rows": [dataclasses.asdict(row) for row in rows], "seconds": clock.seconds}
    write_json(options.json, values)
    if options.quick:
        print("two steps teach nothing: the verdict needs the full run")
        return 0
    held = verdicts(rows, seconds)
    return tell_bounds(held)


if __name__ == "__main__":
    run_command(main, resumes=True)
