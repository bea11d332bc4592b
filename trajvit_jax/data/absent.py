"""Videos of a split that became no record: dead links, damaged files."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tokenization.records import split_shards
from trajvit_jax.data.source import Record, RecordSource


def absent_records(source: Sequence[Record], missing: Collection[str] = ()) -> list[dict[str, str]]:
    """What should have been in a split and is not: id, file and reason of each.

    Args:
      source: the split.
      missing: files that a manifest lacks, as `tokenization.annotations` lists them beside it.
    """
    found = []
    if isinstance(source, RecordSource):
        found = [
            {"id": one.id, "file": one.path, "reason": one.reason}
            for info in split_shards(source.directory, source.split)
            for one in info.quarantine
        ]
    known = {one["file"] for one in found}
    return found + [
        {"id": path, "file": path, "reason": "it is not there"}
        for path in sorted(missing)
        if path not in known
    ]
