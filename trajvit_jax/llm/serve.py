r"""Answers questions about videos for another program: JSON lines on standard input and output.

Example:
  python -m trajvit_jax.llm.serve --model=runs/videollm --frames=16

First it prints {"ready": true}. Each line it then reads is {"questions": [{"text": "...",
"videos": ["a.mp4"]}, ..]}, with `start` and `stop` (seconds) of a question if need be, and settings
beside `questions`: frames, most_tokens, temperature, top_p, stop, seed. It prints {"answers":
["...", ..]}. A question that cannot be answered (a broken video, a prompt too long) has "" there,
and the reason in a key beside it, by position: "failed": {"0": "..."}. Where videos have more
trajectories than the model reads, "dropped": {"0": 12} counts the others likewise. A line that is
no request gets {"error": "..."}. It goes on with the next line either way, and ends with its input.
Nothing else is printed on standard output: what libraries say goes to standard error.

The lmms-eval plugin in plugins/lmms_eval talks to it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from tokenization import exit_codes, interrupts
from tokenization.arguments import ArgumentParser
from trajvit_jax.config import nearest
from trajvit_jax.llm.answerers import DEVICES, HELP, Reply, answer_each, load_answerer
from trajvit_jax.llm.answering import AnswerSettings, Question, VideoAnswerer

_SETTINGS = tuple(field.name for field in dataclasses.fields(AnswerSettings))
_QUESTION = tuple(field.name for field in dataclasses.fields(Question))


def answer_line(line: str, answerer: VideoAnswerer, defaults: AnswerSettings) -> dict[str, Any]:
    """The reply to a line."""
    try:
        request = json.loads(line)
        read, settings = _read(request, defaults)
        asked = [one for one in read if isinstance(one, Question)]
        answered = iter(answer_each(answerer, asked, settings))
        replies = [next(answered) if isinstance(one, Question) else one for one in read]
    except (ValueError, TypeError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    failed = {str(place): one.failed for place, one in enumerate(replies) if one.failed}
    answers = {"answers": [one.text for one in replies]}
    dropped = {str(place): one.dropped for place, one in enumerate(replies) if one.dropped}
    told = {"failed": failed, "dropped": dropped}
    return answers | {name: found for name, found in told.items() if found}


def _read(request: Any, defaults: AnswerSettings) -> tuple[list[Question | Reply], AnswerSettings]:
    """The questions, with a reply in place of each that nobody can be asked, and settings."""
    if not isinstance(request, dict) or not isinstance(request.get("questions"), list):
        raise ValueError('a request is like {"questions": [{"text": "..", "videos": ["a.mp4"]}]}')
    changed = {name: value for name, value in request.items() if name != "questions"}
    _known(changed, _SETTINGS)
    if "stop" in changed:
        changed["stop"] = _texts(changed, "stop")
    questions: list[Question | Reply] = []
    for found in request["questions"]:
        if not isinstance(found, dict) or not isinstance(found.get("text"), str):
            raise ValueError(f"a question needs a text, got {found!r}")
        _known(found, _QUESTION)
        given: dict[str, Any] = found | {"videos": _texts(found, "videos")}
        wrong = [name for name in ("start", "stop") if not _is_time(found, name)]
        if wrong:
            reason = f"{wrong[0]!r} is {found[wrong[0]]!r}, which must be a number of seconds"
            questions.append(Reply(failed=f"ValueError: {reason}", error="ValueError"))
        else:
            times = {n: float(found[n]) for n in ("start", "stop") if found.get(n) is not None}
            questions.append(Question(**given | times))
    return questions, dataclasses.replace(defaults, **changed)


def _is_time(found: Mapping[str, Any], name: str) -> bool:
    if name == "stop" and found.get(name) is None:
        return True
    value = found.get(name, 0.0)
    # Less than what a float can hold: JSON's numbers have no end.
    return type(value) in (int, float) and abs(value) < 1e300


def _texts(found: Mapping[str, Any], name: str) -> tuple[str, ...]:
    texts = found.get(name, [])
    if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
        raise ValueError(f"{name!r} must be a list of texts, got {texts!r}")
    return tuple(texts)


def _known(found: Mapping[str, Any], names: Iterable[str]) -> None:
    for name in found:
        if name not in names:
            raise ValueError(f"unknown key {name!r}: {nearest(name, names)}")


def serve(
    requests: Iterable[str], replies: TextIO, answerer: VideoAnswerer, defaults: AnswerSettings
) -> None:
    """Answers line by line, until there are no more."""
    print(json.dumps({"ready": True}), file=replies, flush=True)
    for line in requests:
        if line.strip():
            reply = json.dumps(answer_line(line, answerer, defaults))
            print(reply, file=replies, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = ArgumentParser(
        prog="python -m trajvit_jax.llm.serve",
        description=__doc__,
    )
    parser.add_argument("--model", required=True, help=HELP)
    parser.add_argument(
        "--frames", type=int, default=16, help="of each video (default: 16); 0: as it was trained"
    )
    parser.add_argument(
        "--most_tokens",
        type=int,
        default=1024,
        help="of an answer, where a request does not say (default: 1024)",
    )
    parser.add_argument(
        "--batch",
        type=int,
        default=1,
        help="questions of a request that are computed at once (default: 1)",
    )
    parser.add_argument("--devices", type=int, default=1, help=DEVICES)
    options = parser.parse_args(arguments)
    # Whatever else prints must not get between the lines.
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        if options.batch < 1:
            raise ValueError(f"--batch={options.batch} must be at least 1")
        defaults = AnswerSettings(frames=options.frames, most_tokens=options.most_tokens)
        answerer = load_answerer(options.model, batch=options.batch, devices=options.devices)
        serve(sys.stdin, own, answerer, defaults)
    except KeyboardInterrupt:
        interrupts.leave("interrupted")
    except BrokenPipeError:
        return 1
    except (ValueError, OSError) as error:
        return exit_codes.tell(error)
    return 0


if __name__ == "__main__":
    interrupts.install("stopping")
    sys.exit(main())
