"""Which of its files holds which tensor of a checkpoint that is in several."""

from __future__ import annotations

import json
from pathlib import Path

from trajvit_jax.convert.contents import CheckpointError

SUFFIX = ".index.json"  # of the index, as Hugging Face's transformers names it


def read_index(path: Path) -> dict[Path, list[str]]:
    """The files of a checkpoint, beside its index, and the names of the tensors of each.

    Raises:
      CheckpointError: no such index, or one that leads out of its folder.
      FileNotFoundError: files that are not beside it.
      OSError: it cannot be read.
    """
    try:
        shards: dict[str, list[str]] = {}
        for name, shard in json.loads(path.read_text("utf-8"))["weight_map"].items():
            shards.setdefault(shard, []).append(name)
    # RecursionError: of brackets in brackets, which need no more than a damaged file.
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path} is no index of a checkpoint, or damaged ({error!r}); download it again"
        ) from error
    for shard in shards:
        # An index may not lead out of its folder.
        if not isinstance(shard, str) or Path(shard).name != shard or shard in ("", ".."):
            raise CheckpointError(f"{path} names {shard!r}, which is no file beside it")
    files = {path.parent / shard: names for shard, names in shards.items()}
    missing = sorted(file.name for file in files if not file.is_file())
    if missing:
        raise FileNotFoundError(
            f"{path} names {len(files)} files, of which {len(missing)} are not beside it "
            f"({', '.join(missing[:3])}); download them"
        )
    return files
