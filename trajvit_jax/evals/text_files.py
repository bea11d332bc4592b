"""Text files that an option names, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path


def read_text(path: str, what: str) -> str:
    """A file as UTF-8, with or without a mark of it at the start.

    Args:
      path: of the file.
      what: it should be, and the option that names it, for the message.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it is not UTF-8.
    """
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(
            f"{path} {'is no file' if file.exists() else 'does not exist'}: {what}"
        )
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 (byte {error.start} is {file.read_bytes()[error.start]:#04x}): "
            f"{what}; write it in UTF-8, or name another file"
        ) from error
