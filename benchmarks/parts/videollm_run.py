"""The parts of `benchmarks.videollm`: clips and their questions, eyes, connectors, scores."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.parts.videollm_claim import claim
from benchmarks.parts.videollm_questions import (
    KINDS,
    Asked,
    Fact,
    balanced,
    captions,
    choose,
    conversation,
    facts,
    questions,
    words,
)
from tokenization.engines.protocol import Engine
from tokenization.extract import extract
from tokenization.files import write_text
from tokenization.manifest import read_manifest
from tokenization.world.captions import Split
from tokenization.world.dataset import clips, write_split
from tokenization.world.scenes import WorldSettings
from trajvit_jax import config as configs
from trajvit_jax.data.samples import in_slots, resized
from trajvit_jax.data.source import Record, RecordSource
from trajvit_jax.data.wordpiece import SPECIAL
from trajvit_jax.demo.chain import DataSettings
from trajvit_jax.evals import loaded
from trajvit_jax.experiment import ExperimentSettings
from trajvit_jax.llm import hugging_face
from trajvit_jax.llm.answering import AnswerSettings
from trajvit_jax.llm.benchmarks.intervals import mean
from trajvit_jax.llm.conversation import question, to_llava
from trajvit_jax.llm.experiment import VideoLLMExperiment, WeightSettings
from trajvit_jax.llm.eyes import Eyes, EyesSettings, Seen, slots_of, token_numbers
from trajvit_jax.llm.generation import Generator
from trajvit_jax.llm.packing import RowSettings
from trajvit_jax.llm.saved import Saved
from trajvit_jax.llm.sequences import spread
from trajvit_jax.llm.train import train
from trajvit_jax.llm.videos import Clip
from trajvit_jax.models.settings import ModelSettings, ResNetSettings
from trajvit_jax.optim import OptimizerSettings

_LOG = logging.getLogger("benchmarks.videollm")
# Tokens of conversations about 300 clips, without their videos: 31.8 in the mean, 78 at most.
_TEXT, _LONGEST = 32, 84
_FOLLOWED = 8  # tokens of a clip in TrajViT, with some room: 5.2 in the mean of 400, 15 at most
_BUCKET = 124  # tokens of a prompt: with its answer 128
_ANSWER = 4  # tokens at most
_CAPTION = 26  # tokens at most: 23 words of 2,400 clips, of two shots, with [CLS] and [SEP] 25
_TRAJECTORIES = 15  # of a clip at most; 22 of 400 held-out clips have more
_DEPTH = 2  # of TrajViT's encoder
_RESNET = ResNetSettings(stem=8, widths=(16, 32, 64, 64), depths=(1, 1, 1, 1))

Known = Mapping[str, tuple[Fact, ...]]


@dataclasses.dataclass(frozen=True)
class Score:
    """Right answers to questions of one kind.

    Attributes:
      kind: of the questions.
      asked: how many.
      answers: different right answers, all equally frequent: chance is one of them.
      right: share, in percent.
      low: of its 95% interval over clips (`intervals.mean`), as `high`; None = of one clip.
      high: of it.
      shuffled: the share where every question is asked about another clip, in percent.
    """

    kind: str
    asked: int
    answers: int
    right: float
    low: float | None
    high: float | None
    shuffled: float

    @property
    def chance(self) -> float:
        """In percent."""
        return 100 / self.answers


def known_of(split: Split, count: int, world: WorldSettings, seed: int) -> Known:
    """What is in each clip of a split, by its id."""
    return {clip.id: facts(clip.scene) for clip in clips(split, count, world, seed=seed)}


def make_clips(
    data: DataSettings,
    known: Mapping[Split, Known],
    *,
    world: Path,
    records: Path,
    engine: Engine | None = None,
) -> None:
    """Clips and their records, with the captions of `videollm_questions.captions`.

    Args:
      data: how many there are, of which world, and how they are cut.
      known: what is in the clips of each split.
      world: folder of the clips.
      records: folder of their records.
      engine: where they are made; None = processes of this machine.
    """
    for split, own in known.items():
        manifest = write_split(world, split, len(own), data.world, seed=data.seed)
        entries = [
            dataclasses.replace(entry, captions=captions(own[entry.id], split))
            for entry in read_manifest(manifest)
        ]
        extract(entries, records, data.extract, split=split, engine=engine)


def write_talks(path: Path, known: Known, *, each: int, seed: int) -> None:
    """Conversations about clips, as LLaVA-Video has them: at most `each` a clip.

    No two of a clip ask the same question, so that some have fewer.

    Keeps a file that is there.

    Raises:
      ValueError: it was made of other clips, or with another seed.
    """
    told = {name: [dataclasses.asdict(fact) for fact in own] for name, own in known.items()}
    clips = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
    note = path.with_suffix(".made_with.json")
    if claim(note, {"clips": clips, "each": each, "seed": seed}) and path.is_file():
        return
    rng, entries = np.random.default_rng([seed, 2]), []
    for name, own in known.items():
        left = questions(own)
        for number in range(each):
            asked = choose(left, rng, 4)
            done = {one.wordings for one in asked}
            left = [one for one in left if one.wordings not in done]
            if asked:
                talk = conversation(f"{name}-{number}", "<video>", asked, (f"{name}.mp4",))
                entries.append(to_llava(talk))
    write_text(path, json.dumps(entries) + "\n")


def eyes_settings(
    model: str,
    records: Path,
    *,
    vocabulary: Path,
    clips: int,
    batch: int,
    steps: int,
    frames: int,
    learning_rate: float,
    image_size: int,
    seed: int,
    debug: bool,
    initial: Path | None = None,
) -> ExperimentSettings:
    """The demo's recipe on so many clips, which stay in memory, and models that learn it sooner.

    Captions are short, so their encoder is. Of TrajViT: more channels, none of which a narrow map
    mixes; the mean over frames in place of a resampler, and a trajectory's boxes of all frames in
    a row, of which a displacement is a linear map; two layers. Where an image's object is tells
    nothing, and would tell images apart: no position there.

    Args:
      model: its name.
      records: folder of the clips' records.
      vocabulary: file of the captions' words: runs of one start from each other.
      clips: that are trained on.
      batch: clips at once.
      steps: of training.
      frames: of a clip; 1 = images.
      learning_rate: at its highest.
      image_size: pixels a side.
      seed: of the run.
      debug: fewer layers.
      initial: workdir of the run that it starts from, if any.
    """
    demo = configs.to_settings(
        ExperimentSettings,
        configs.load(
            f"configs/demo.py:model={model},records={records},frames={frames},"
            f"trajectories={_TRAJECTORIES},steps={steps},seed={seed},cache={clips},batch={batch},"
            f"image_size={image_size},debug={debug}"
        ),
    )
    own = demo.model
    text = dataclasses.replace(own.text, length=_CAPTION, positions=_CAPTION, depth=1, unroll=1)
    trajvit = dataclasses.replace(
        own.trajvit,
        resnet=own.trajvit.resnet if debug else _RESNET,
        feature_width=0,
        appearance="mean",
        position="none" if frames == 1 else "boxes",
        position_reader="mlp",
    )
    depth = _DEPTH if model == "trajvit" else own.encoder.depth
    return dataclasses.replace(
        demo,
        model=dataclasses.replace(
            own,
            encoder=dataclasses.replace(
                own.encoder, depth=depth, unroll=min(depth, own.encoder.unroll)
            ),
            text=text,
            trajvit=trajvit,
            # Of one frame no pairs can be read.
            vit3d=dataclasses.replace(own.vit3d, tubelet=min(frames, own.vit3d.tubelet)),
        ),
        data=dataclasses.replace(demo.data, vocabulary=str(vocabulary)),
        optimizer=dataclasses.replace(demo.optimizer, learning_rate=learning_rate),
        initial="" if initial is None else str(initial),
    )


def write_vocabulary(path: Path) -> None:
    """Every word of captions, as a BERT vocabulary."""
    write_text(path, "\n".join([*SPECIAL, *sorted({"and", *words()})]) + "\n")


def teach(
    eyes: Path,
    text: Path,
    records: Path,
    talks: Path,
    workdir: Path,
    *,
    clips: int,
    batch: int,
    steps: int,
    seed: int,
) -> tuple[VideoLLMExperiment, dict[str, float]]:
    """Trains the connector between two frozen models, or reads its finished run."""
    own = loaded.load(eyes).model.settings
    video = _FOLLOWED if own.name == "trajvit" else slots_of(own)
    settings = VideoLLMExperiment(
        model=own,
        data=configs.to_settings(
            type(ExperimentSettings().data),
            {"train": str(records), "batch": batch, "threads": 2, "cache": clips},
        ),
        optimizer=OptimizerSettings(
            learning_rate=1.5e-2, beta2=0.98, weight_decay=0.0, warmup_fraction=0.05
        ),
        seed=seed,
        steps=steps,
        log_every=10,
        checkpoint_every=200,
        eyes=EyesSettings(),
        llm=hugging_face.read_settings(text, dtype="float32", unroll=4),
        weights=WeightSettings(video=str(eyes), llm=str(text)),
        conversations=(str(talks),),
        rows=rows_for(video, batch),
    )
    return settings, train(settings, workdir)


def rows_for(video: int, batch: int) -> RowSettings:
    """Rows for a batch of conversations, of multiples of 256 tokens: attention reads all pairs.

    A sixth more than the mean needs, where conversations share a row.

    Args:
      video: its tokens.
      batch: conversations.
    """
    length = -(-(video + _LONGEST) // 256) * 256
    # A conversation is not cut: what is left of a row after the last whole one is of no use.
    each = length // (video + _TEXT)
    rows = batch if each == 1 else -(-batch * 7 // (6 * each))
    return RowSettings(group=batch, rows=rows, length=length)


def read_clips(source: Iterable[Record], video: ModelSettings) -> dict[str, Clip]:
    """Every record of a split as such eyes read it."""
    found = {}
    for record in source:
        pixels, trajectories = resized(record, video)
        most = video.trajvit.max_trajectories
        labels, dropped = in_slots(trajectories, most)
        found[record.id] = Clip(pixels, labels, min(most, len(trajectories)), dropped)
    return found


def see(clips: Mapping[str, Clip], eyes: Eyes, *, batch: int = 32) -> dict[str, tuple[Seen, int]]:
    """The tokens of every clip, and how many trajectories it has."""
    names, found = list(clips), {}
    for first in range(0, len(names), batch):
        own = names[first : first + batch]
        full = [clips[name] for name in own + own[:1] * (batch - len(own))]
        video = jnp.stack([clip.video for clip in full])
        labels = jnp.stack([clip.labels for clip in full])
        seen = _look(eyes, video, labels, groups=batch)
        for row, name in enumerate(own):
            found[name] = Seen(seen.states[row], seen.valid[row]), clips[name].trajectories
    return found


@functools.partial(nnx.jit, static_argnames="groups")
def _look(eyes: Eyes, video: jax.Array, labels: jax.Array, *, groups: int) -> Seen:
    return eyes(video, labels, groups=groups)


def answer(
    asked: Sequence[tuple[str, Asked]],
    seen: Mapping[str, tuple[Seen, int]],
    saved: Saved,
    generator: Generator,
) -> list[str]:
    """The model's answer to each question about a clip."""
    settings, answers = saved.model.settings, []
    slots = slots_of(settings.video)
    for first in range(0, len(asked), generator.batch):
        own = asked[first : first + generator.batch]
        prompts = []
        for name, one in own:
            text = saved.chat.encode(question(one.text, (name,)), answer=True)
            numbers = token_numbers(settings.video, settings.eyes, seen[name][1], slots)
            prompts.append(spread(text, [numbers]))
        full = [seen[name][0] for name, _ in own]
        full += full[:1] * (generator.batch - len(own))
        together = Seen(*(jnp.stack([getattr(s, p) for s in full]) for p in ("states", "valid")))
        found = generator.generate(prompts, together, AnswerSettings(most_tokens=_ANSWER))
        answers += [saved.chat.decode(ids) for ids in found]
    return answers


def score(
    known: Known, source: RecordSource, saved: Saved, *, most: int, seed: int, batch: int = 32
) -> list[Score]:
    """Answers to balanced questions about held-out clips, and about clips that were shuffled."""
    seen = see(read_clips(source, saved.model.settings.video), saved.model.eyes, batch=batch)
    # A clip that could not be cut has no record.
    pool = [(name, one) for name in known if name in seen for one in questions(known[name])]
    asked = balanced(pool, most, seed=seed)
    names = [name for name in known if name in seen]
    # Every clip is another's.
    other = dict(zip(names, names[len(names) // 2 :] + names[: len(names) // 2], strict=True))
    # Both ask the same programs: of one length of prompts, and one of caches.
    generator = Generator(saved.model, saved.chat.stop, batch=batch, bucket=_BUCKET)
    elsewhere = [(other[name], one) for name, one in asked]
    right = _right(asked, answer(asked, seen, saved, generator))
    wrong = _right(asked, answer(elsewhere, seen, saved, generator))
    scores = []
    for kind in KINDS:
        places = [i for i, (_, one) in enumerate(asked) if one.kind == kind]
        if not places:
            continue
        own = right[places]
        found = mean(own.tolist(), [asked[i][0] for i in places], seed=seed).scaled(100.0)
        answers = 2 if kind == "order" else len({asked[i][1].value for i in places})
        scores.append(
            Score(
                kind=kind,
                asked=len(places),
                answers=answers,
                right=found.value,
                low=found.low,
                high=found.high,
                shuffled=100 * float(wrong[places].mean()),
            )
        )
    return scores


def _right(asked: Sequence[tuple[str, Asked]], answers: Sequence[str]) -> np.ndarray:
    pairs = zip(asked, answers, strict=True)
    return np.array([one.answer == said.strip() for (_, one), said in pairs], float)


def tokens_read(source: RecordSource, saved: Saved) -> float:
    """Tokens of a clip that the language model reads, in the mean."""
    settings = saved.model.settings
    slots = slots_of(settings.video)
    counts = [
        len(token_numbers(settings.video, settings.eyes, clip.trajectories, slots))
        for clip in read_clips(source, settings.video).values()
    ]
    return float(np.mean(counts))
