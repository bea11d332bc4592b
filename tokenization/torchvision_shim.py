"""torchvision without its compiled operators, which lack in a build for CUDA beside a CPU torch.

transformers and sam2 import torchvision where it is installed, and its import asks torch for
operators that only its compiled part declares. Declaring them is enough: nothing here calls one.
"""

from __future__ import annotations

import functools

import torch


@functools.cache
def make_importable() -> torch.library.Library | None:
    """Declares the missing operators, once; call it before importing transformers or sam2.

    Returns:
      What holds the declarations: they end with it, so the cache keeps it. None where
      torchvision is whole, or absent.
    """
    try:
        import torchvision  # noqa: F401
    except ModuleNotFoundError:
        return None
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        return library
    return None
