"""The door to the tokenization package: records, as data and evaluations read them."""

from tokenization.records import Record, RecordSource, open_records, read_captions

__all__ = ["Record", "RecordSource", "open_records", "read_captions"]
