"""Where in a nested checkpoint the model's tensors are, and under what prefix.

Training programs save their state dict beside an optimizer, an epoch and their options, each
under a name of its own choice. Nothing is imported here: a tensor is what has a shape and a dtype.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from trajvit_jax.config import nearest
from trajvit_jax.convert.contents import CheckpointError

T = TypeVar("T")

# Names under which programs save a model, the plainest first.
MODEL_NAMES = ("model", "state_dict", "model_state_dict", "model_state", "module", "params")
# What wrappers put before every name: (Distributed)DataParallel and torch.compile. "model." and
# "bert." are no such: whether a checkpoint has them depends on its head, so name tables decide.
WRAPPERS = ("module.", "_orig_mod.")


@dataclasses.dataclass(frozen=True)
class Found:
    """The tensors of a model in a nested checkpoint.

    Attributes:
      tensors: by name.
      place: keys that lead to them, joined by "/"; "" if they are the file's outermost mapping.
      elsewhere: place -> number of tensors, of all others.
      skipped: places of the values that are no tensors.
    """

    tensors: dict[str, Any]
    place: str = ""
    elsewhere: Mapping[str, int] = dataclasses.field(default_factory=dict)
    skipped: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Node:
    place: str
    content: Mapping[Any, Any]
    optimizer: str  # place of the optimizer that this is a part of; "" if none

    def items(self) -> Iterator[tuple[str, str, Any]]:
        """Name, place and value of every entry."""
        for key, value in self.content.items():
            yield str(key), f"{self.place}/{key}" if self.place else str(key), value


def find(tree: Any, place: str | None = None) -> Found:
    """Finds the mapping that holds the model's tensors.

    It is the one under the first of `MODEL_NAMES` that there is, else the one with most tensors.
    Optimizers, known by their `state` and `param_groups`, are passed over.

    Args:
      tree: what a file held: mappings in mappings.
      place: which mapping to take instead, its keys joined by "/". In a file without mappings:
        the beginning of names that are joined so themselves.

    Raises:
      CheckpointError: no tensors in there, or not at `place`; the message lacks the file's name.
    """
    if not isinstance(tree, Mapping):
        raise CheckpointError(
            f"holds a {type(tree).__name__}, not tensors by name; save a state dict"
        )
    nodes = list(_nodes(tree))
    tensors = {n.place: {k: v for k, _, v in n.items() if _is_tensor(v)} for n in nodes}
    holders = [node for node in nodes if tensors[node.place]]
    skipped = tuple(at for n in nodes for _, at, v in n.items() if not _is_tensor(v, Mapping))
    if place is None:
        chosen = min(
            (node.place for node in holders if not node.optimizer),
            key=lambda at: (_rank(at), -len(tensors[at])),
            default=None,
        )
        if chosen is None:
            raise CheckpointError(
                f"holds no tensors of a model, only {', '.join(map(repr, tree)) or 'nothing'}"
            )
        place = chosen
    content, start = _at(nodes, place)
    own = {str(k): v for k, v in content.items() if str(k).startswith(start) and _is_tensor(v)}
    if not own:
        raise CheckpointError(f"has no tensors at {place!r}; {_hint(place, holders)}")
    elsewhere: Counter[str] = Counter()
    for node in holders:
        others = len(tensors[node.place]) - (len(own) if node.content is content else 0)
        if others:
            elsewhere[node.optimizer or node.place] += others
    return Found({k[len(start) :]: v for k, v in own.items()}, place, dict(elsewhere), skipped)


def unwrap(arrays: Mapping[str, T]) -> tuple[dict[str, T], str]:
    """Removes the `WRAPPERS` that every name starts with; returns them as well."""
    removed = ""
    while arrays and (prefix := next((w for w in WRAPPERS if _all_start(arrays, w)), "")):
        arrays = {name.removeprefix(prefix): array for name, array in arrays.items()}
        removed += prefix
    return dict(arrays), removed


def _at(nodes: list[_Node], place: str) -> tuple[Mapping[Any, Any], str]:
    """The mapping at a place, and how its names there begin."""
    for node in nodes:
        if node.place == place:
            return node.content, ""
    top: Any = nodes[0].content
    below = top
    for key in place.split("/"):  # it may be at another place too, where `nodes` has it
        named = below.items() if isinstance(below, Mapping) else ()
        below = next((value for name, value in named if str(name) == key), None)
    return (below, "") if isinstance(below, Mapping) else (top, f"{place}/")


def _hint(place: str, holders: list[_Node]) -> str:
    """Where there are tensors instead."""
    places = [node.place for node in holders if node.place]
    if len(places) < len(holders):
        places.insert(0, "")
    if places == [""]:
        return "the arrays are at the top; leave the place (--place) out"
    return nearest(place, places) if places else "there are none in it"


def _all_start(names: Mapping[str, Any], prefix: str) -> bool:
    return all(name.startswith(prefix) and name != prefix for name in names)


def _nodes(tree: Mapping[Any, Any]) -> Iterator[_Node]:
    """All mappings, outermost first; each once, so that one that holds itself does not hang."""
    queue = deque([_Node("", tree, "")])
    seen: set[int] = set()
    while queue:
        node = queue.popleft()
        if id(node.content) in seen:
            continue
        seen.add(id(node.content))
        if not node.optimizer and {"state", "param_groups"} <= node.content.keys():
            node = dataclasses.replace(node, optimizer=node.place or "the file itself")
        yield node
        for _, place, value in node.items():
            if isinstance(value, Mapping):
                queue.append(_Node(place, value, node.optimizer))


def _is_tensor(value: Any, *others: type) -> bool:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return getattr(value.dtype, "kind", "") not in ("U", "S", "M", "m")  # NumPy's texts, times
    return isinstance(value, others)


def _rank(place: str) -> int:
    name = place.rpartition("/")[2]
    return MODEL_NAMES.index(name) if name in MODEL_NAMES else len(MODEL_NAMES)
