"""Records: one video with its trajectories as an example of a TFDS dataset.

A dataset is a folder of ArrayRecord shards with TFDS metadata, so that
`tfds.builder_from_directory(folder).as_data_source()` reads it, without TensorFlow;
`open_records` reads it as `Record`s. `tokenization.shards` writes it.

This is the door to three rooms: the record and its coding (`record`), what is noted of finished
shards (`shard_notes`), and reading (`record_source`).
"""

from __future__ import annotations

from tokenization.record import (
    JPEG_QUALITY,
    VERSION,
    Boxes,
    Record,
    decode,
    encode,
    features,
    provenance,
    short_hash,
    text_of,
    to_json,
)
from tokenization.record_source import (
    CaptionSource,
    RecordsError,
    RecordSource,
    open_captions,
    open_records,
    read_captions,
)
from tokenization.shard_notes import (
    Quarantined,
    ShardInfo,
    SplitNotes,
    finished_shards,
    split_shards,
)

__all__ = [
    "JPEG_QUALITY",
    "VERSION",
    "Boxes",
    "CaptionSource",
    "Quarantined",
    "Record",
    "RecordSource",
    "RecordsError",
    "ShardInfo",
    "SplitNotes",
    "decode",
    "encode",
    "features",
    "finished_shards",
    "open_captions",
    "open_records",
    "provenance",
    "read_captions",
    "short_hash",
    "split_shards",
    "text_of",
    "to_json",
]
