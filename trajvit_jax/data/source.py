"""The door to the tokenization package: records, as data and evaluations read them."""

from tokenization.records import Record, RecordsError, RecordSource, open_captions, open_records

__all__ = ["Record", "RecordSource", "RecordsError", "open_captions", "open_records"]
