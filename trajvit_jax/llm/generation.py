"""Answers, token by token: a compiled prefill a prompt length, a step a size of the cache."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from trajvit_jax.llm.answering import AnswerSettings
from trajvit_jax.llm.eyes import Seen
from trajvit_jax.llm.llama import Cache, Llama
from trajvit_jax.llm.model import VideoLLM
from trajvit_jax.llm.sampling import next_tokens
from trajvit_jax.llm.sequences import Sequences, Spread, check_length, rows_of

_PLAIN = AnswerSettings()
_PIECE = 1024  # tokens of a prompt that are read at once


# JAX also builds pytrees around None and tracers: annotations tell, but are not checked.
@no_type_check
@struct.dataclass
class _Running:
    """Answers that are being given.

    Attributes:
      cache: of everything read.
      token: the last one of each row.
      position: of that token in its row's sequence.
      count: tokens that were answered.
      seed: of each row's draws.
    """

    cache: Cache
    token: Int32[Array, " b"]
    position: Int32[Array, " b"]
    count: Int32[Array, ""]
    seed: Int32[Array, " b"]


@no_type_check
@struct.dataclass
class _Choice:
    temperature: Float32[Array, ""]
    top_p: Float32[Array, ""]
    seed: Int32[Array, ""]


class Generator:
    """Generates with one model.

    Prompts are padded on the left to multiples of `bucket` tokens, rows to `batch`, and the cache
    has a power of two of slots: so few programs are compiled, and later batches of the same
    lengths compile none.

    Args:
      model: the VideoLLM.
      stop: ids after which an answer is over.
      batch: rows at once; fewer prompts leave some without use.
      bucket: prompt lengths are rounded up to a multiple of it.
    """

    def __init__(self, model: VideoLLM, stop: Sequence[int], *, batch: int = 1, bucket: int = 64):
        self._settings, self._stop = model.settings.llm, tuple(stop)
        self.batch, self._bucket = batch, bucket
        self._graph, self._state = nnx.split(model)
        self._prefill = jax.jit(functools.partial(_prefill, self._graph), static_argnames="slots")
        self._step = jax.jit(functools.partial(_step, self._graph), donate_argnums=1)

    @property
    def programs(self) -> tuple[int, int]:
        """How many programs of prefill and of the step were compiled."""
        return self._prefill._cache_size(), self._step._cache_size()

    def stream(
        self,
        prompts: Sequence[Spread],
        seen: Seen | None,
        settings: AnswerSettings = _PLAIN,
        *,
        seeds: Sequence[int] = (),
    ) -> Iterator[Int32[np.ndarray, " b"]]:
        """The next token of each prompt's answer, again and again, until all are over.

        A row whose answer is over goes on with tokens that mean nothing: see `generate`.

        Args:
          prompts: at most `batch`, each up to where its answer begins.
          seen: tokens of the videos of `batch` groups, one a row; None = no prompt has videos.
          settings: how tokens are chosen, and how many at most.
          seeds: of each prompt's draws, so that they do not depend on its row; () = its row.

        Raises:
          ContextOverflow: a prompt that leaves no room for its answer.
          ValueError: more prompts than rows, or none.
        """
        if not 0 < len(prompts) <= self.batch:
            raise ValueError(f"{len(prompts)} prompts for {self.batch} rows")
        most = settings.most_tokens
        for number, prompt in enumerate(prompts):
            text = int((prompt.source < 0).sum())
            check_length(
                len(prompt) + most,
                self._settings.context,
                name=f"prompt {number} with an answer of up to {most}",
                text=text + most,
            )
        length = self._rounded(max(map(len, prompts)))
        empty = prompts[0].__class__(*(x[:0] for x in vars(prompts[0]).values()))
        rows = [[prompt] for prompt in prompts] + [[empty]] * (self.batch - len(prompts))
        sequences = rows_of(rows, length, pad_left=True)
        own = np.arange(self.batch, dtype=np.int32)
        own[: len(seeds)] = seeds
        choice = _Choice(
            np.float32(settings.temperature), np.float32(settings.top_p), np.int32(settings.seed)
        )
        running = self._prefill(
            self._state, sequences, seen, choice, own, slots=1 << (length + most - 1).bit_length()
        )
        over = np.arange(self.batch) >= len(prompts)
        for number in range(most):
            tokens = np.asarray(running.token)
            yield tokens[: len(prompts)]
            over = over | np.isin(tokens, self._stop)
            if over.all() or number == most - 1:
                return
            running = self._step(self._state, running, choice)

    def generate(
        self,
        prompts: Sequence[Spread],
        seen: Seen | None,
        settings: AnswerSettings = _PLAIN,
        *,
        seeds: Sequence[int] = (),
    ) -> list[list[int]]:
        """Each prompt's answer, without the id that ended it; see `stream`."""
        answers: list[list[int]] = [[] for _ in prompts]
        over = [False] * len(prompts)
        for tokens in self.stream(prompts, seen, settings, seeds=seeds):
            for row, token in enumerate(tokens.tolist()):
                over[row] = over[row] or token in self._stop
                if not over[row]:
                    answers[row].append(token)
        return answers

    def _rounded(self, count: int) -> int:
        return -(-count // self._bucket) * self._bucket


def _prefill(
    graph: nnx.GraphDef,
    state: nnx.State,
    sequences: Sequences,
    seen: Seen | None,
    choice: _Choice,
    seed: jax.Array,
    *,
    slots: int,
) -> _Running:
    """Reads the prompts and chooses the first token of each answer."""
    model = nnx.merge(graph, state)
    x, segments, positions = model.embed(sequences, seen)
    cache = Cache.empty(model.settings.llm, x.shape[0], slots)
    last, cache = _read_in_pieces(model.llm, x, segments > 0, positions, cache)
    count = jnp.zeros((), jnp.int32)
    token = _choose(model, last, choice, seed, count)
    return _Running(cache, token, positions[:, -1] + 1, count + 1, seed)


def _read_in_pieces(
    llm: Llama,
    x: Float[Array, "b l d"],
    valid: Bool[Array, "b l"],
    positions: Int[Array, "b l"],
    cache: Cache,
) -> tuple[Float[Array, "b d"], Cache]:
    """The last token's state, and the cache with all of them.

    Pieces are read one after the other: attention of a prompt of 25,000 tokens, all at once, would
    need a hundred gigabytes.
    """
    first = (x.shape[1] - 1) % _PIECE + 1
    states, cache = llm.extend(x[:, :first], valid[:, :first], positions[:, :first], cache)
    last = states[:, -1]
    if x.shape[1] == first:
        return last, cache

    def pieces(whole: jax.Array) -> jax.Array:
        cut = whole[:, first:].reshape(len(whole), -1, _PIECE, *whole.shape[2:])
        return jnp.swapaxes(cut, 0, 1)

    graph, arrays = nnx.split(llm)

    def read(before: tuple[jax.Array, Cache], piece: tuple[jax.Array, ...]) -> Any:
        states, cache = nnx.merge(graph, arrays, copy=True).extend(*piece, before[1])
        return (states[:, -1], cache), None

    found, _ = jax.lax.scan(read, (last, cache), tuple(map(pieces, (x, valid, positions))))
    return found


def _step(graph: nnx.GraphDef, state: nnx.State, running: _Running, choice: _Choice) -> _Running:
    """Reads each row's last token and chooses the next."""
    model = nnx.merge(graph, state)
    x = model.llm.embed(running.token[:, None])
    valid: Bool[Array, "b 1"] = jnp.ones(x.shape[:2], bool)
    states, cache = model.llm.extend(x, valid, running.position[:, None], running.cache)
    token = _choose(model, states[:, 0], choice, running.seed, running.count)
    return running.replace(
        cache=cache, token=token, position=running.position + 1, count=running.count + 1
    )


def _choose(
    model: VideoLLM, states: jax.Array, choice: _Choice, seed: jax.Array, count: jax.Array
) -> jax.Array:
    key = jax.random.fold_in(jax.random.key(choice.seed), count)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, seed)
    return next_tokens(model.llm.logits(states), keys, choice.temperature, choice.top_p)
