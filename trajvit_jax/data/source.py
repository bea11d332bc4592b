"""The door to the tokenization package: records, as data and evaluations read them."""

from tokenization.records import Record, RecordSource, open_captions, open_records

__all__ = ["Record", "RecordSource", "open_captions", "open_records"]
