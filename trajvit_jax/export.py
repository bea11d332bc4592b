"""A run -> a folder that anybody can load: weights, vocabulary, and how its videos are made.

  python -m trajvit_jax.export --workdir=runs/mine --output=models/mine
  python -m trajvit_jax.export --workdir=runs/mine --output=models/mine --dtype=float16

In Python:

  import trajvit_jax
  model = trajvit_jax.load("models/mine")
  model.embed_video("a.mp4")

The folder holds model.safetensors (the evaluated parameters: the average, where the run kept one),
settings.json, vocab.txt, tokenization.json and report.txt. It needs no records and no optimizer
state, and a README.md that you put into it is the model's card. With --dtype=float16 or bfloat16
parameters take half of the space; the running statistics of normalizations stay float32.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tokenization import exit_codes
from tokenization.arguments import ArgumentParser

DTYPES = ("float32", "float16", "bfloat16")


def export(
    workdir: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    step: int | None = None,
    dtype: str = "float32",
) -> list[str]:
    """Writes the folder, whole or not at all; returns the lines of its report.

    Args:
      workdir: of the run.
      output: must not be there yet, or be empty.
      step: of the checkpoint; None = the newest.
      dtype: of the parameters, see `DTYPES`.

    Raises:
      FileExistsError: the folder holds something.
      FileNotFoundError: no run, or no such checkpoint.
      ValueError: a checkpoint that cannot be read, or numbers that the dtype cannot hold.
      OSError: storage that cannot be read or written.
    """
    # Imported late: flax takes seconds, and --help should not.
    import ml_dtypes
    import numpy as np
    from flax import nnx

    from trajvit_jax.convert import stored
    from trajvit_jax.convert.pieces import paths
    from trajvit_jax.evals.loaded import VOCABULARY, load
    from trajvit_jax.experiment import TOKENIZATION

    stored.check_new(output)
    found = load(workdir, step=step)
    arrays = {name: np.asarray(array) for name, array in paths(found.model).items()}
    _, statistics = nnx.split_state(nnx.state(found.model), nnx.Param, ...)
    kept = {".".join(map(str, path)) for path, _ in nnx.to_flat_state(statistics)}
    target = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    for name in sorted(set(arrays) - kept):
        arrays[name] = arrays[name].astype(target)
        if not np.isfinite(arrays[name].astype(np.float32)).all():
            raise ValueError(f"{name} has numbers that {dtype} cannot hold; use --dtype=bfloat16")
    numbers = sum(array.size for array in arrays.values())
    size = sum(array.nbytes for array in arrays.values())
    lines = [
        f"{found.model.settings.name}, {numbers:,} numbers in {size / 1e6:.1f} MB, {dtype}",
        f"from the run {Path(workdir).name}, step {found.step}, seed {found.seed}, "
        f"checkpoint {found.checkpoint}",
    ]
    texts = {stored.REPORT: "\n".join(lines) + "\n"}
    if found.text is not None:
        texts[VOCABULARY] = "\n".join(found.text.vocabulary) + "\n"
    tokenization = Path(workdir) / TOKENIZATION
    if tokenization.is_file():
        texts[TOKENIZATION] = tokenization.read_text("utf-8")
    stored.write_stored(output, stored.Stored(arrays, found.model.settings, stored.OWN), texts)
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = ArgumentParser(
        prog="python -m trajvit_jax.export",
        description=__doc__,
    )
    parser.add_argument("--workdir", type=Path, required=True, help="of the run")
    parser.add_argument("--output", type=Path, required=True, help="new folder")
    parser.add_argument("--step", type=int, help="of the checkpoint; the newest by default")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the parameters")
    options = parser.parse_args(arguments)
    try:
        lines = export(options.workdir, options.output, step=options.step, dtype=options.dtype)
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        return exit_codes.tell(error)
    print("\n".join([*lines, f"wrote {options.output}"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
