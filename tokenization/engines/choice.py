"""The flags by which commands choose an engine, and when they give a video up."""

from __future__ import annotations

from absl import flags

from tokenization.engines.crew import Patience
from tokenization.engines.devices import visible_gpus
from tokenization.engines.inline import InlineEngine
from tokenization.engines.local import LocalEngine
from tokenization.engines.protocol import Engine
from tokenization.engines.ray_actors import RayEngine

ENGINES = ("local", "ray", "inline")


def define_flags() -> None:
    """Defines the flags; not at import, where they would clash with other commands."""
    flags.DEFINE_enum(
        "engine",
        "local",
        ENGINES,
        "local: processes of this machine; ray: actors on a Ray cluster (launch/README.md); "
        "inline: in this process, for debuggers. All give the same records, and one goes on "
        "where another was stopped.",
    )
    flags.DEFINE_integer(
        "workers",
        None,
        "Processes or actors; by default one a GPU where the settings use it, else one a CPU core. "
        "Twice as many as GPUs: one makes records while the other has the GPU.",
        lower_bound=1,
    )
    flags.DEFINE_string(
        "address",
        None,
        "Of the Ray cluster, or auto = the one that this machine is part of. By default "
        "RAY_ADDRESS, or else Ray on this machine alone.",
    )
    flags.DEFINE_float(
        "gpus_per_worker",
        None,
        "Of a Ray actor; 0.5 lets two share one: one makes records while the other has the GPU. By "
        "default 1 where the settings use it and the cluster has any; name it for a cluster that "
        "starts without machines.",
        lower_bound=0,
    )
    flags.DEFINE_float(
        "time_limit", 1800.0, "Seconds for a video, after which its worker is killed.", 1.0
    )
    flags.DEFINE_integer(
        "tries",
        3,
        "Workers that may die of a video, or be killed for it, before it is quarantined.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "in_a_row",
        200,
        "Videos that may fail for the same reason, one after the other, before the run ends: it is "
        "the disk or the device then. 0 = any number.",
        lower_bound=0,
    )


def chosen_engine(*, wants_gpu: bool) -> Engine:
    """The engine that the flags name.

    Raises:
      ValueError: flags that do not go together.
    """
    flag = flags.FLAGS
    if flag.engine != "ray":
        for name in ("address", "gpus_per_worker"):
            if flag[name].present:
                raise ValueError(f"--{name} is of --engine=ray, not of --engine={flag.engine}")
    match flag.engine:
        case "inline":
            return InlineEngine()
        case "local":
            return LocalEngine(flag.workers, gpus=visible_gpus() if wants_gpu else ())
    return RayEngine(
        flag.address, workers=flag.workers, gpus=flag.gpus_per_worker, wants_gpu=wants_gpu
    )


def chosen_patience() -> Patience:
    """When a video is given up, by the flags."""
    flag = flags.FLAGS
    return Patience(flag.tries, flag.time_limit, flag.in_a_row or None)
