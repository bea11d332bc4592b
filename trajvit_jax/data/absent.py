"""Videos of a split that became no record: dead links, damaged files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tokenization import missing
from tokenization.records import split_shards
from trajvit_jax.data.index import record_ids
from trajvit_jax.data.source import Record, RecordSource


def absent_records(
    source: Sequence[Record], listed: Mapping[str, str] | None = None
) -> list[dict[str, str]]:
    """What should have been in a split and is not: id, file and reason of each.

    Args:
      source: the split; what its extraction noted as missing is counted, too.
      listed: paths of more entries without a file, by id, as `tokenization.missing` reads them.

    Raises:
      ValueError: the noted list is not UTF-8.
    """
    found, paths = [], dict(listed or {})
    if isinstance(source, RecordSource):
        found = [
            {"id": one.id, "file": one.path, "reason": one.reason}
            for info in split_shards(source.directory, source.split)
            for one in info.quarantine
        ]
        paths |= missing.read_kept(source.directory, source.split)
    if not paths:
        return found
    # A file that came later made a record, or was tried: a list of paths has those for ids.
    known = {*record_ids(source), *(name for one in found for name in (one["id"], one["file"]))}
    return found + [
        {"id": name, "file": path, "reason": "it is not there"}
        for name, path in sorted(paths.items())
        if name not in known
    ]
