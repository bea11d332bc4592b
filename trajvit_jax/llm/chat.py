r"""Asks a language model about a video, in a terminal.

Examples:
  python -m trajvit_jax.llm.chat --model=runs/videollm/videollm-trajvit --video=clip.mp4
  python -m trajvit_jax.llm.chat --model=runs/llama3 --video=a.mp4 --video=b.png \
      --question="What do they have in common?"

--model is the workdir of `python -m trajvit_jax.llm.teach`, or a folder as
`python -m benchmarks.videollm` leaves behind; without it the environment variable TRAJVIT_MODEL
names that. Without --question every line that is typed is one;
an empty line or Ctrl-D ends. Videos are read before the first question, or where it says <video>.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tqdm import tqdm

from tokenization import exit_codes, interrupts
from tokenization.arguments import ArgumentParser
from trajvit_jax.llm.answerers import DEVICES, out_of_memory

if TYPE_CHECKING:
    from trajvit_jax.llm.answering import AnswerSettings
    from trajvit_jax.llm.conversation import Turn
    from trajvit_jax.llm.videollm import VideoLLMAnswerer

_MODEL = "TRAJVIT_MODEL"  # the environment variable


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = ArgumentParser(prog="python -m trajvit_jax.llm.chat", description=__doc__)
    parser.add_argument("--model", help=f"folder of the VideoLLM (default: that of ${_MODEL})")
    parser.add_argument("--video", action="append", default=[], help="file; several, if repeated")
    parser.add_argument("--question", help="ask this alone")
    parser.add_argument("--frames", type=int, default=0, help="of each video; 0 = as in training")
    parser.add_argument("--most", type=int, default=256, help="tokens of an answer at most")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 = the likeliest token")
    parser.add_argument("--top_p", type=float, default=1.0, help="of the likeliest tokens")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--devices", type=int, default=1, help=DEVICES)
    options = parser.parse_args(argv)
    try:
        folder = options.model or os.environ.get(_MODEL)
        if not folder:
            raise ValueError(
                f"no model: name it by --model or the environment variable {_MODEL}; it is the "
                "workdir of python -m trajvit_jax.llm.teach, or a folder that python -m "
                "benchmarks.videollm left behind"
            )
        from trajvit_jax.llm import videollm
        from trajvit_jax.llm.answering import AnswerSettings, Question

        settings = AnswerSettings(
            frames=options.frames,
            most_tokens=options.most,
            temperature=options.temperature,
            top_p=options.top_p,
            seed=options.seed,
        )
        model = videollm.load(folder, batch=1, devices=options.devices)
        bar = tqdm(options.video, desc="reading videos", unit="video", delay=5, leave=False)
        for path in bar:
            told = f"{path}: {model.tokens_of(path, options.frames)} tokens"
            if dropped := model.dropped(Question("", (path,)), settings):
                told += f"; its {dropped} smallest trajectories are more than the model reads"
            bar.write(told, file=sys.stderr)
        talk(model, options.video, settings, options.question)
    except KeyboardInterrupt:
        interrupts.leave("interrupted")
    except (OSError, ValueError) as error:
        return exit_codes.tell(error)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        frames = options.frames or "as many as in training"
        reason = str(error).splitlines()[0]
        return exit_codes.tell(
            MemoryError(
                f"the device has no memory for this model and videos of {frames} frames "
                f"({reason}); give fewer --frames, or fewer videos"
            )
        )
    return 0


def talk(
    model: VideoLLMAnswerer,
    videos: Sequence[str],
    settings: AnswerSettings,
    question: str | None,
) -> None:
    """Asks one question, or all that are typed; a bad one is told of, and can be asked anew.

    Where the conversation has outgrown the model's context, its oldest turns are forgotten.
    """
    from trajvit_jax.llm.conversation import PLACEHOLDER, Turn
    from trajvit_jax.llm.sequences import ContextOverflow

    turns: list[Turn] = []
    for text in [question] if question is not None else typed():
        asked = text
        if not turns and videos and not PLACEHOLDER.search(text):
            asked = "<video>\n" * len(videos) + text
        kept = [*turns, Turn("user", asked)]
        try:
            while True:
                try:
                    answer = _told(model, kept, videos, settings)
                    break
                except ContextOverflow:
                    if len(kept) == 1:
                        raise
                    kept = without_oldest(kept)
        except ValueError as error:
            if question is not None:
                raise
            print(f"error: {error}", file=sys.stderr)
            continue
        if forgotten := (len(turns) + 1 - len(kept)) // 2:
            print(
                f"the context is full: the model no longer reads the {forgotten} oldest questions "
                "and answers",
                file=sys.stderr,
            )
        # In an answer a placeholder stands for no video, and the next question would be refused.
        said = PLACEHOLDER.sub("video", answer).strip()
        turns = [*kept, Turn("assistant", said or ".")]


def without_oldest(turns: Sequence[Turn]) -> list[Turn]:
    """A conversation less its first question and answer, whose videos the next one reads."""
    from trajvit_jax.llm.conversation import PLACEHOLDER, Turn

    videos = len(PLACEHOLDER.findall(turns[0].text))
    return [Turn("user", "<video>\n" * videos + turns[2].text), *turns[3:]]


def typed() -> Iterator[str]:
    """Lines that are typed, up to an empty one or the end."""
    while True:
        try:
            line = input("> ")
        except EOFError:
            print()
            return
        if not line.strip():
            return
        yield line


def _told(
    model: VideoLLMAnswerer,
    turns: Sequence[Turn],
    videos: Sequence[str],
    settings: AnswerSettings,
) -> str:
    """Prints the answer as it comes, and returns it."""
    shown = ""
    for text in model.reply(turns, videos, settings):
        # The last characters may be half of one: they are shown once the next token tells.
        if text.startswith(shown) and not text.endswith("�"):
            print(text[len(shown) :], end="", flush=True)
            shown = text
    print()
    return shown


if __name__ == "__main__":
    interrupts.install("leaving")
    sys.exit(main())
