"""The records that a run evaluates on."""

from __future__ import annotations

from trajvit_jax.data.pipeline import DataSettings
from trajvit_jax.data.source import RecordsError, RecordSource, open_records


def open_held_out(data: DataSettings) -> RecordSource:
    """Opens them.

    Raises:
      RecordsError: there are none; the message says how to name or write some.
    """
    split = data.eval_split
    try:
        return open_records(data.evaluation_folder, split)
    except RecordsError as error:
        raise RecordsError(
            f"no records to evaluate on: {error}. A run ends with an evaluation. Name a folder "
            f"with a split {split!r}: --config.data.evaluation=FOLDER, or evaluation=FOLDER behind "
            "the name of a config of the paper's runs. Or write one: python -m tokenization."
            f"extract --input=... --split={split} --output=FOLDER"
        ) from error
