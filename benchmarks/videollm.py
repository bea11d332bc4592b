"""A tiny VideoLLM on the procedural world: does the connector alone teach text to see?

  1. trains a tiny Llama on scenes written as text, with questions and answers: it sees no clip;
     in half of the scenes an object is a single place, the mean of its words' embeddings;
  2. asks it about held-out scenes, and stops where it hardly answers about single places;
  3. renders clips and cuts them into trajectories (configs/videollm/world.py);
  4. trains TrajViT and ViT3D by the demo's recipe on larger frames: on images of single objects
     first, then on the clips, by captions of colours, shapes, directions or all of them; and tells
     by a linear probe what each named object's token knows;
  5. freezes both halves, and trains the linear connector between them on conversations about the
     clips;
  6. asks about held-out clips, and asks the same questions about other clips.

Where either half alone knows less than was hoped for, the run goes on and its table says so: that
is no bound on what both know together.

Records and finished runs are kept in --output, so that an interrupted benchmark goes on; so are
the seconds that each stage took, of all runs together. The hour is judged by the clock, unless it
took longer and other programs computed beside it.

  python -m benchmarks.videollm --oracle          # no clips: the connector on perfect facts
  python -m benchmarks.videollm                   # meant to take under an hour on two cores
  python -m benchmarks.videollm --models=trajvit  # one of the two
  python -m benchmarks.videollm --quick           # few clips and steps: it runs
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax

from benchmarks.parts.arguments import some_of
from benchmarks.parts.command import parser_of, run_command, tell_bounds, write_json
from benchmarks.parts.videollm_clock import RunClock, hour_verdict
from benchmarks.parts.videollm_halves import (
    NotLearned,
    ask_in_words,
    below,
    in_line,
    in_percent,
    probe,
    unseen,
)
from benchmarks.parts.videollm_images import make_images
from benchmarks.parts.videollm_oracle import ask_by_facts
from benchmarks.parts.videollm_run import (
    Known,
    Score,
    eyes_settings,
    known_of,
    make_clips,
    score,
    teach,
    tokens_read,
    write_talks,
    write_vocabulary,
)
from benchmarks.parts.videollm_text import TextSettings
from benchmarks.parts.videollm_text import train as train_text
from tokenization.engines.devices import available_cores
from tokenization.engines.inline import InlineEngine
from tokenization.world.captions import Split
from tokenization.world.scenes import WorldSettings
from trajvit_jax import config as configs
from trajvit_jax.data.source import open_records
from trajvit_jax.demo.chain import DataSettings
from trajvit_jax.demo.page import TITLES
from trajvit_jax.llm import saved as folders
from trajvit_jax.llm.costs import eyes_flops, prefill_flops
from trajvit_jax.train import train as train_eyes

MODELS = ("trajvit", "vit3d")
_QUESTION = 20  # tokens of a question with its marks
_BOUNDS = {"colour": 90.0, "shape": 90.0, "direction": 70.0}
_LOG = logging.getLogger("benchmarks.videollm")


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much is made of everything.

    Attributes:
      train: clips, as `test`.
      images: that the video encoders learn from first; a twentieth as many are held out.
      image_steps: of this.
      image_rate: its learning rate at its highest.
      image_batch: images at once.
      eyes_steps: of the video encoders on clips.
      eyes_rate: their learning rate at its highest.
      image_size: pixels a side that they see.
      text: the language model.
      scenes: held-out ones that it is asked about in words.
      floor: of its right answers where objects are single places, in percent, under which the run
        ends.
      words: of its right answers in words, in percent; where fewer are, the table says so.
      placed: likewise where objects are single places.
      seen: likewise what a probe reads off TrajViT's tokens, by kind.
      steps: of the connectors.
      most: questions of a kind, in words and about clips.
      batch: clips and conversations at once.
      seed: of everything.
      debug: encoders of few layers, and programs that compile quickly and run slowly; clips are
        cut in this process.
    """

    train: int = 2400
    test: int = 400
    images: int = 8000
    image_steps: int = 450
    image_rate: float = 2e-3
    image_batch: int = 128
    eyes_steps: int = 800
    eyes_rate: float = 1e-3
    image_size: int = 96
    text: TextSettings = TextSettings()
    scenes: int = 800
    floor: float = 60.0
    words: float = 97.0
    placed: float = 95.0
    seen: Mapping[str, float] = dataclasses.field(default_factory=lambda: dict(_BOUNDS))
    steps: int = 800
    most: int = 240
    batch: int = 32
    seed: int = 0
    debug: bool = False


QUICK = Settings(
    train=16,
    test=8,
    images=40,
    image_steps=2,
    image_batch=8,
    eyes_steps=2,
    image_size=64,
    text=TextSettings(width=32, depth=1, mlp=64, scenes=40, steps=3, rows=2),
    scenes=40,
    floor=0.0,
    words=0.0,
    placed=0.0,
    seen={},
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
      placed: likewise where objects are single places.
      probed: what a linear map reads off the eyes' tokens, in percent.
      tokens: of a clip that the language model reads.
      prefill: FLOPs of reading a clip and a question, by formula: eyes and language model.
      llm_prefill: the language model's part of it.
      seconds: of a training step of the connector.
      retrieval: R@5 of the eyes on captions, text to video, in percent.
      unreached: what of `words`, `placed` and `probed` is less than was hoped for.
    """

    model: str
    scores: tuple[Score, ...]
    words: Mapping[str, float]
    placed: Mapping[str, float]
    probed: Mapping[str, float]
    tokens: float
    prefill: float
    llm_prefill: float
    seconds: float
    retrieval: float
    unreached: tuple[str, ...] = ()


def measure(output: Path, models: Sequence[str], settings: Settings, clock: RunClock) -> list[Row]:
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
        words, few = words_known(text, data.world, settings)
        placed, fewer = words_known(text, data.world, settings, placed=True)
    _warn([*few, *fewer])
    with clock.stage("clips"):
        # Processes of few clips take longer to start than to work.
        engine = InlineEngine() if settings.debug else None
        known, own = (
            known_of(split, count, data.world, data.seed)
            for split, count in (("test", settings.test), ("train", settings.train))
        )
        by_split: dict[Split, Known] = {"train": own, "test": known}
        make_clips(data, by_split, world=output / "world", records=records, engine=engine)
        write_talks(talks, own, each=3, seed=settings.seed)
    with clock.stage("images"):
        counts: dict[Split, int] = {"train": settings.images, "test": max(8, settings.images // 20)}
        make_images(data, counts, folder=output / "images", engine=engine)
        write_vocabulary(output / "words.txt")
    shown, held_out = (open_records(records, split) for split in ("train", "test"))
    rows = []
    for model in models:
        eyes, workdir = output / f"eyes-{model}", output / f"llm-{model}"
        with clock.stage(f"eyes {model}"):
            retrieval = learn_to_see(model, output, eyes, settings, frames=data.world.frames)
        with clock.stage(f"probe {model}", again=True):
            of = {"train": (own, shown), "test": (known, held_out)}
            probed = probe(eyes, output / "world", **of, batch=settings.batch)
        told = in_line(probed)
        _LOG.info("%s: a linear map reads off an object's token: %s", TITLES[model], told)
        dim = []
        if model == "trajvit":
            dim = unseen(probed, settings.seen, f"{eyes} and {workdir}")
            _warn(dim)
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
        seen = eyes_flops(experiment.model, experiment.eyes)
        rows.append(
            Row(
                model=model,
                scores=tuple(scores),
                words=words,
                placed=placed,
                probed=probed,
                tokens=tokens,
                prefill=float(read + seen),
                llm_prefill=float(read),
                seconds=results["seconds_a_step"],
                retrieval=retrieval["txt2vid_r5"],
                unreached=(*few, *fewer, *dim),
            )
        )
    return rows


def learn_to_see(
    model: str, output: Path, workdir: Path, settings: Settings, *, frames: int
) -> dict[str, float]:
    """Trains a video encoder, on images and then on clips; returns the retrieval of clips."""
    of_images = workdir.with_name(f"{workdir.name}-images")
    shared = {
        "vocabulary": output / "words.txt",
        "image_size": settings.image_size,
        "seed": settings.seed,
        "debug": settings.debug,
    }
    images = eyes_settings(
        # What reads pairs of frames starts as the paper's does, from what read images.
        "vit" if model == "vit3d" else model,
        output / "images" / "records",
        clips=settings.images,
        batch=settings.image_batch,
        steps=settings.image_steps,
        frames=1,
        learning_rate=settings.image_rate,
        **shared,
    )
    train_eyes(images, of_images)
    clips = eyes_settings(
        model,
        output / "records",
        clips=settings.train,
        batch=settings.batch,
        steps=settings.eyes_steps,
        frames=frames,
        learning_rate=settings.eyes_rate,
        initial=of_images,
        **shared,
    )
    return train_eyes(clips, workdir)


def _warn(unreached: Sequence[str]) -> None:
    """At once: the table is far away."""
    for told in unreached:
        _LOG.warning("not reached: %s", told)


def words_known(
    text: Path, world: WorldSettings, settings: Settings, *, placed: bool = False
) -> tuple[dict[str, float], list[str]]:
    """The language model's right answers about scenes in words, by kind, in percent.

    With `placed` about scenes whose objects are single places. Beside them, what is to be told
    where they are fewer than was hoped for.

    Raises:
      NotLearned: fewer than the floor of a kind that answers about clips are judged by.
    """
    found = ask_in_words(
        text,
        world,
        count=settings.scenes,
        most=settings.most,
        seed=settings.seed,
        placed=placed,
    )
    shares, wanted = in_percent(found), settings.placed if placed else settings.words
    how, told = "in single places" if placed else "in words", in_line(shares)
    _LOG.info("the language model about held-out scenes %s: %s", how, told)
    advice = f"raise text.steps or text.scenes in Settings and delete {text}: clips and eyes stay"
    # A clip's objects are single places: who answers about these has what the connector needs.
    hopeless = [kind for kind in _BOUNDS if shares.get(kind, 0) < settings.floor] if placed else []
    if hopeless:
        raise NotLearned(
            f"the language model hardly answers about scenes {how} ({told}; under "
            f"{settings.floor:.0f}% of {', '.join(hopeless)}): of clips it would say nothing that "
            f"means anything. For longer training {advice}"
        )
    short = below(found, wanted, _BOUNDS)
    if not short:
        return shares, []
    return shares, [
        f"the language model answers fewer than {wanted:.0f}% of {', '.join(short)} about scenes "
        f"{how}: {told}; for longer training {advice}"
    ]


def measure_oracle(
    output: Path, settings: Settings, clock: RunClock
) -> tuple[dict[str, float], list[str]]:
    """Right answers of a connector that was trained on perfect facts, by kind, in percent.

    Beside them, what the language model alone does not reach.

    Raises:
      NotLearned, ValueError: as `measure` does.
    """
    world = configs.to_settings(DataSettings, configs.load("configs/videollm/world.py")).world
    text = output / "text"
    with clock.stage("language model"):
        train_text(text, world, settings.text)
    with clock.stage("in words", again=True):
        alone = [words_known(text, world, settings, placed=placed) for placed in (False, True)]
    with clock.stage("oracle", again=True):
        found = ask_by_facts(
            text,
            world,
            scenes=settings.train,
            steps=settings.steps,
            batch=settings.batch,
            held_out=settings.scenes,
            most=settings.most,
            seed=settings.seed,
        )
    return in_percent(found), [told for _, few in alone for told in few]


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
            f"  {one.kind:9} {one.right:5.1f}%{_interval(one)} of {one.asked}; "
            f"shuffled {one.shuffled:.1f}%, chance {one.chance:.1f}%"
            + (f"; in words {row.words[one.kind]:.1f}%" if one.kind in row.words else "")
            + (f"; in places {row.placed[one.kind]:.1f}%" if one.kind in row.placed else "")
            + (f"; probe {row.probed[one.kind]:.1f}%" if one.kind in row.probed else "")
            for one in row.scores
        ]
        lines += [f"  not reached: {told}" for told in row.unreached]
    return "\n".join(lines)


def _interval(one: Score) -> str:
    return "" if one.low is None else f" ({one.low:.1f} to {one.high:.1f})"


def verdicts(rows: Sequence[Row]) -> dict[str, bool]:
    """The bounds on TrajViT's answers, and whether each holds."""
    found = {}
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
    parser.add_argument(
        "--oracle", action="store_true", help="only the language model, asked by perfect facts"
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
    clock = RunClock(output / "seconds.json")
    try:
        if options.oracle:
            shares, unreached = measure_oracle(output, settings, clock)
            print(f"a connector of perfect facts, about held-out scenes: {in_line(shares)}")
            for told in unreached:
                print(f"  not reached: {told}")
            print(_spent(clock))
            held = [shares.get(kind, 0.0) >= bound for kind, bound in _BOUNDS.items()]
            return 0 if options.quick or all(held) else 1
        rows = measure(output, options.models, settings, clock)
    except NotLearned as error:
        clock.finish()
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        clock.finish()
        raise
    print(table(rows))
    print(_spent(clock))
    processors = available_cores()
    times = sum(clock.seconds.values()), sum(clock.cpu_seconds.values())
    hour, in_time = hour_verdict(*times, processors, clock.others)
    values = {
        "rows": [dataclasses.asdict(row) for row in rows],
        "seconds": clock.seconds,
        "cpu_seconds": clock.cpu_seconds,
        "processors": processors,
        "others": clock.others,
        "in_an_hour": in_time,
    }
    write_json(options.json, values)
    if options.quick:
        print("two steps teach nothing: the verdict needs the full run")
        return 0
    if in_time is None:
        print(hour)
    return tell_bounds(({} if in_time is None else {hour: in_time}) | verdicts(rows))


def _spent(clock: RunClock) -> str:
    """The time that all took, by the clock and of processors."""
    clock.finish()
    seconds, cpu = clock.seconds, clock.cpu_seconds
    told = ", ".join(f"{name} {spent:.0f} ({cpu[name]:.0f})" for name, spent in seconds.items())
    processors = available_cores()
    return (
        f"{sum(seconds.values()) / 60:.1f} minutes by the clock, interrupted runs included; CPU "
        f"seconds / {processors} processors = {sum(cpu.values()) / processors / 60:.1f} minutes; "
        f"seconds, and those of processors: {told}"
    )


if __name__ == "__main__":
    run_command(main, resumes=True)
