"""SAM 2.1 (Ravi et al. 2024) as a tracker of many objects: the models of the `sam2` package.

What its video predictor does object by object is done for a batch of objects here, with the
same numbers (tests/torch/test_sam2_tracker.py); small holes are not filled, which it does only
where its CUDA extension is built. Imports torch: reached through `backends` alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch.nn import functional

from tokenization import torchvision_shim
from tokenization.devices import Device
from tokenization.learned import LearnedSettings, Sam2Settings
from tokenization.trackers.batched import BatchedTracker
from tokenization.weights import WeightsError

torchvision_shim.make_importable()

from sam2.build_sam import build_sam2  # noqa: E402
from sam2.modeling.sam2_base import SAM2Base  # noqa: E402

_CONFIGS = {"tiny": "t", "small": "s", "base_plus": "b+", "large": "l"}


class Sam2Model:
    """A `MaskModel` of SAM 2's modules.

    Args:
      model: in evaluation mode, on its device.
    """

    def __init__(self, model: SAM2Base) -> None:
        self.side = model.image_size
        self._model = model
        self._positions: list[torch.Tensor] = []

    def encode(self, images: Float[torch.Tensor, "k 3 s s"]) -> list[torch.Tensor]:
        """Feature maps of three levels, the finest first, as the mask decoder takes them."""
        features = self._model.forward_image(images)
        # Those of all images are the same.
        self._positions = [part[:1] for part in features["vision_pos_enc"]]
        return features["backbone_fpn"]

    def follow(
        self,
        features: Sequence[torch.Tensor],
        frames: Int64[np.ndarray, "n t"],
        masks: Float[torch.Tensor, "n 1 s s"],
    ) -> Iterator[Float[torch.Tensor, "n 1 r r"]]:
        """Logits after the first frame, at a quarter of the images' side; see `MaskModel`."""
        length = frames.shape[1]
        bank: dict[str, dict[int, dict[str, Any]]] = {
            "cond_frame_outputs": {},
            "non_cond_frame_outputs": {},
        }
        for t in range(length):
            inputs = self._inputs(features, frames[:, t])
            found = self._model.track_step(
                frame_idx=t,
                is_init_cond_frame=t == 0,
                **inputs,
                point_inputs=None,
                mask_inputs=masks if t == 0 else None,
                output_dict=bank,
                num_frames=length,
                run_mem_encoder=0 < t < length - 1,
            )
            if t == 0:
                found |= self._remember_prompt(inputs, found)
                bank["cond_frame_outputs"][0] = _kept(found)
                continue
            bank["non_cond_frame_outputs"][t] = _kept(found)
            # Older ones are out of the model's reach; their pointers are not.
            if (old := t - self._model.num_maskmem + 1) > 0:
                del bank["non_cond_frame_outputs"][old]["maskmem_features"]
            yield found["pred_masks"]

    def _remember_prompt(
        self, inputs: Mapping[str, Any], found: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The memory of the given masks: the predictor encodes them as clicked ones, cut at 0."""
        high = functional.interpolate(
            found["pred_masks"], (self.side, self.side), mode="bilinear", align_corners=False
        )
        memory, positions = self._model._encode_new_memory(
            current_vision_feats=inputs["current_vision_feats"],
            feat_sizes=inputs["feat_sizes"],
            pred_masks_high_res=high,
            object_score_logits=found["object_score_logits"],
            is_mask_from_pts=True,
        )
        return {"maskmem_features": memory, "maskmem_pos_enc": positions}

    def _inputs(
        self, features: Sequence[torch.Tensor], frames: Int64[np.ndarray, " n"]
    ) -> dict[str, Any]:
        """Each object's frame, as `track_step` takes it: cells first, then objects."""
        n, first = len(frames), int(frames[0])
        if (frames == first).all():  # of one clip: nothing is copied
            levels = [level[first : first + 1].expand(n, -1, -1, -1) for level in features]
        else:
            index = torch.from_numpy(frames).to(features[0].device)
            levels = [level[index] for level in features]
        positions = [part.expand(n, -1, -1, -1) for part in self._positions]
        return {
            "current_vision_feats": [_cells_first(level) for level in levels],
            "current_vision_pos_embeds": [_cells_first(part) for part in positions],
            "feat_sizes": [tuple(level.shape[-2:]) for level in levels],
        }


def _cells_first(maps: Float[torch.Tensor, "n c h w"]) -> Float[torch.Tensor, "hw n c"]:
    return maps.flatten(2).permute(2, 0, 1)


def _kept(found: Mapping[str, Any]) -> dict[str, Any]:
    """What later frames need. Memories are kept in bfloat16, as the video predictor does."""
    kept = {"obj_ptr": found["obj_ptr"]}
    if found["maskmem_features"] is not None:
        kept["maskmem_features"] = found["maskmem_features"].to(torch.bfloat16)
        # Those of all objects are the same: one copy.
        kept["maskmem_pos_enc"] = [
            part[:1].clone().expand_as(part) for part in found["maskmem_pos_enc"]
        ]
    return kept


def build_model(settings: Sam2Settings, device: Device, path: Path | None) -> SAM2Base:
    """SAM 2.1 with the settings of its video predictor.

    Args:
      settings: which, and for which images.
      device: where it goes.
      path: a checkpoint in the official format; None = random weights.

    Raises:
      WeightsError: a checkpoint of something else.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_sam2(
            f"configs/sam2.1/sam2.1_hiera_{_CONFIGS[settings.size]}.yaml",
            ckpt_path=None,
            device="cpu",
            hydra_overrides_extra=[
                f"++model.image_size={settings.resolution}",
                "++model.binarize_mask_from_pts_for_mem_enc=true",
            ],
        )
    if path is not None:
        _load(model, path, settings)
    device.compile(model.image_encoder)
    return model.to(device.torch)


def _load(model: SAM2Base, path: Path, settings: Sam2Settings) -> None:
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(saved["model"])
    except OSError:
        raise
    except Exception as error:  # whatever a damaged or foreign file makes the reader raise
        raise WeightsError(
            f"{path} is no checkpoint of SAM 2.1 {settings.size} ({_first_line(error)}); "
            "is it of another size?"
        ) from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def make(settings: LearnedSettings, paths: Sequence[Path] | None) -> BatchedTracker:
    """The tracker of this name; without a path to a checkpoint, with random weights."""
    device = Device(settings.running)
    model = Sam2Model(build_model(settings.sam2, device, paths[0] if paths else None))
    return BatchedTracker("sam2", model, device, settings.running)
