"""The batched SAM 2 tracker against the sam2 package's own video predictor, object by object."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from types import ModuleType

import numpy as np
import pytest

from tokenization.engines.protocol import WorkerUnfit
from tokenization.learned import DeviceSettings, Sam2Settings
from tokenization.protocols import Clip

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.torch,
    # What it says where its CUDA extension is not built; `make sam2` does not build it.
    pytest.mark.filterwarnings("ignore:[\\s\\S]*Skipping the post-processing step:UserWarning"),
]

SETTINGS = Sam2Settings(size="tiny", resolution=128)
RUNNING = DeviceSettings(device="cpu", precision="float32", image_batch=5, objects=4)
CLOSE = 1e-5


@dataclasses.dataclass(frozen=True)
class Sam2:
    """The modules, and one model with weights under which prompts matter."""

    tracker: ModuleType
    batched: ModuleType
    device: object
    model: object
    predictor: object
    loader: ModuleType

    def recording(self):
        """A tracker, and a list that each chunk's logits will be appended to."""
        logits: list[np.ndarray] = []
        model = self.tracker.Sam2Model(self.model)

        class Recording:
            side = model.side
            encode = staticmethod(model.encode)

            @staticmethod
            def follow(features, frames, masks) -> Iterator:
                found = list(model.follow(features, frames, masks))
                logits.append(np.stack([part.numpy()[:, 0] for part in found], 1))
                return iter(found)

        return self.batched.BatchedTracker("sam2", Recording(), self.device, RUNNING), logits

    def predict(self, clip: Clip):
        """Logits by the package's predictor: at its own resolution, and at the clip's."""
        import torch

        images = self.device.images(clip.frames, SETTINGS.resolution)
        height, width = clip.frames.shape[1:3]
        self.loader.load_video_frames = lambda **_: (images, height, width)
        state = self.predictor.init_state("frames in memory")
        for label in np.setdiff1d(clip.segments[0], [0]):
            mask = torch.from_numpy(clip.segments[0] == label)
            self.predictor.add_new_mask(state, 0, int(label), mask)
        large = [out.numpy()[:, 0] for _, _, out in self.predictor.propagate_in_video(state)]
        small = [
            [outputs["non_cond_frame_outputs"][t]["pred_masks"].numpy()[0, 0] for t in times]
            for outputs in state["output_dict_per_obj"].values()
            for times in [range(1, len(clip.frames))]
        ]
        return np.array(small), np.stack(large[1:], 1)


@pytest.fixture(scope="module")
def sam2(torch, transformers, respond) -> Sam2:
    pytest.importorskip("sam2", reason="sam2 is not installed: `make sam2`")
    from sam2 import sam2_video_predictor
    from sam2.build_sam import build_sam2_video_predictor

    from tokenization.devices import Device
    from tokenization.trackers import batched
    from tokenization.trackers import sam2 as tracker

    device = Device(RUNNING)
    model = tracker.build_model(SETTINGS, device, None)
    respond(model, 0)
    # Objects are always there. The head's last layer scales logits to about 0.03: rounding moves
    # them by less than 1e-5, after 18 frames too, prompts by far more.
    model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.data.fill_(100)
    for head in model.sam_mask_decoder.output_hypernetworks_mlps:
        head.layers[-1].weight.data *= 0.01
        head.layers[-1].bias.data *= 0.01
    predictor = build_sam2_video_predictor(
        "configs/sam2.1/sam2.1_hiera_t.yaml",
        ckpt_path=None,
        device="cpu",
        hydra_overrides_extra=[f"++model.image_size={SETTINGS.resolution}"],
    )
    predictor.load_state_dict(model.state_dict())
    return Sam2(tracker, batched, device, model, predictor, sam2_video_predictor)


def moving(t: int, labels: tuple[int, ...], *, seed: int, h: int = 96, w: int = 128) -> Clip:
    """Coarse noise that moves, and a rectangle for each label, later ones over earlier ones."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (h // 8, w // 8, 3)).repeat(8, 0).repeat(8, 1)
    frames = np.stack([np.roll(noise, 3 * i, 1) for i in range(t)]).astype(np.uint8)
    segments = np.zeros((h, w), np.int32)
    for label in labels:
        y, x = rng.integers(0, h // 2), rng.integers(0, w // 2)
        segments[y : y + rng.integers(h // 5, h // 2), x : x + rng.integers(w // 5, w // 2)] = label
    assert set(labels) <= set(np.unique(segments))
    return Clip(frames, {0: segments})


# Beyond the memory bank (7 frames) and the object pointers (16), and with a shared frame.
def clips() -> list[Clip]:
    first = moving(4, (1, 2, 3), seed=1)
    second = moving(4, (5, 9), seed=2, h=128, w=96)
    long = moving(18, (2, 3), seed=3)
    short = moving(2, (4,), seed=4)
    return [first, second, long, short]


@pytest.fixture(scope="module")
def tracked(sam2):
    tracker, logits = sam2.recording()
    labels = tracker.track(clips())
    return labels, logits


@pytest.fixture(scope="module")
def expected(sam2):
    return [sam2.predict(clip) for clip in clips()]


def by_clip(logits: list[np.ndarray]) -> list[np.ndarray]:
    """Recorded logits, in the order of `clips`: groups of 18, 4 and 2 frames, 4 at once."""
    long, four, one, short = logits
    four = np.concatenate([four, one])
    return [four[:3], four[3:], long, short]


def test_logits_equal_those_of_the_video_predictor(tracked, expected):
    for ours, (theirs, _) in zip(by_clip(tracked[1]), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=CLOSE)


def test_masks_equal_where_logits_are_clear_and_both_signs_occur(tracked, expected):
    for ours, (theirs, _) in zip(by_clip(tracked[1]), expected, strict=True):
        clear = np.abs(theirs) > 1e-3
        np.testing.assert_array_equal((ours > 0)[clear], (theirs > 0)[clear])
        inside = (theirs > 0).mean((2, 3))
        assert inside.min() > 0.1
        assert inside.max() < 0.9


def test_swapped_prompts_move_every_logit_map(sam2, tracked):
    swapped, others = sam2.recording(), []
    for clip in clips():
        labels = np.setdiff1d(clip.segments[0], [0])
        roles = np.zeros(labels.max() + 1, np.int32)
        roles[labels] = np.roll(labels, 1)
        others.append(Clip(clip.frames, {0: roles[clip.segments[0]]}))
    swapped[0].track(others)
    for ours, other in zip(by_clip(tracked[1])[:3], by_clip(swapped[1])[:3], strict=True):
        assert np.abs(ours - other).max((2, 3)).min() >= 30 * CLOSE


def test_labels_are_those_of_the_highest_logit(tracked, expected):
    for clip, labels, (_, logits) in zip(clips(), tracked[0], expected, strict=True):
        np.testing.assert_array_equal(labels[0], clip.segments[0])
        best = np.sort(np.concatenate([logits, np.zeros_like(logits[:1])]), axis=0)
        clear = best[-1] - best[-2] > 3 * CLOSE
        assert clear.mean() > 0.8
        ids = np.setdiff1d(clip.segments[0], [0])
        wanted = np.where(logits.max(0) > 0, ids[logits.argmax(0)], 0)
        np.testing.assert_array_equal(labels[1:][clear], wanted[clear])
        assert len(np.unique(labels[1:])) > 1


def test_running_out_of_memory_halves_the_chunk_and_goes_on(sam2, torch, tracked):
    tracker, _ = sam2.recording()
    model, sizes = tracker._model, []
    follow = model.follow

    def limited(features, frames, masks):
        sizes.append(len(masks))
        if len(masks) > 2:
            raise torch.OutOfMemoryError
        return follow(features, frames, masks)

    model.follow = limited
    for labels, wanted in zip(tracker.track(clips()), tracked[0], strict=True):
        assert (labels == wanted).mean() > 0.999
    assert sizes == [2, 4, 2, 2, 1, 1]


class Tiny:
    """A model of two levels of features whose masks stay where they are; counts what it holds.

    Args:
      torch: the package.
      room: frames whose features fit.
      fails: numbers of the allocations that run out of memory whatever they are for.
    """

    side = 128

    def __init__(self, torch, room: int = 99, fails: tuple[int, ...] = ()) -> None:
        self.torch, self.room, self.fails = torch, room, fails
        self.allocations = 0
        self.held: list[int] = []
        self.refused: list[int] = []

    def encode(self, images):
        model, torch = self, self.torch

        class Level(torch.Tensor):
            def new_empty(self, count, *shape):
                model.allocations += 1
                if count > model.room or model.allocations in model.fails:
                    model.refused.append(count)
                    raise torch.OutOfMemoryError
                model.held.append(count)
                return torch.empty(count, *shape)

        return [images.as_subclass(Level), images[:, :1].as_subclass(Level)]

    def follow(self, features, frames, masks):
        assert len({len(level) for level in features}) == 1
        for _ in range(frames.shape[1] - 1):
            yield 2 * masks - 1


def test_memory_that_runs_out_for_features_is_asked_for_again(sam2, torch):
    """The second of two levels does not fit at first: neither is kept."""
    model = Tiny(torch, fails=(2,))
    tracker = sam2.batched.BatchedTracker("tiny", model, sam2.device, RUNNING)
    for labels, clip in zip(tracker.track(clips()), clips(), strict=True):
        np.testing.assert_array_equal(np.unique(labels[-1]), np.unique(clip.segments[0]))
    assert model.held == [28, 28, 28]


def test_clips_whose_features_do_not_fit_together_go_in_smaller_batches(sam2, torch):
    whole = sam2.batched.BatchedTracker("tiny", Tiny(torch), sam2.device, RUNNING).track(clips())
    model = Tiny(torch, room=18)
    tracker = sam2.batched.BatchedTracker("tiny", model, sam2.device, RUNNING)
    for labels, expected in zip(tracker.track(clips()), whole, strict=True):
        np.testing.assert_array_equal(labels, expected)
    assert model.held == [8, 8, 18, 18, 2, 2]
    tried = model.allocations
    tracker.track(clips())
    assert model.allocations == tried + 6, "batches stay as small as they had to become"
    model.room = 1
    with pytest.raises(WorkerUnfit, match="the device failed"):
        tracker.track(clips())


def test_a_batch_that_does_not_fit_makes_all_later_ones_smaller(sam2, torch):
    """Each was tried at full size again, though the first had shown that it does not fit."""
    many = [clip for _ in range(4) for clip in clips()]
    many = [dataclasses.replace(clip, frames=clip.frames ^ i) for i, clip in enumerate(many)]
    whole = sam2.batched.BatchedTracker("tiny", Tiny(torch), sam2.device, RUNNING).track(many)
    model = Tiny(torch, room=18)
    running = dataclasses.replace(RUNNING, frames_held=28)
    tracker = sam2.batched.BatchedTracker("tiny", model, sam2.device, running)
    for labels, expected in zip(tracker.track(many), whole, strict=True):
        np.testing.assert_array_equal(labels, expected)
    assert model.refused == [28, 28, 28], "one batch, its first images in chunks of 5, 2 and 1"
    still = dataclasses.replace(clips()[0], frames=np.zeros_like(clips()[0].frames))
    with pytest.raises(WorkerUnfit, match="the device failed"):  # not halved for ever
        model.room = 0
        tracker.track([still, still])


def test_nothing_to_follow(sam2):
    tracker, logits = sam2.recording()
    empty = Clip(np.zeros((3, 8, 8, 3), np.uint8), {0: np.zeros((8, 8), np.int32)})
    image = Clip(np.zeros((1, 8, 8, 3), np.uint8), {0: np.ones((8, 8), np.int32)})
    nothing, one = tracker.track([empty, image])
    assert not nothing.any()
    assert one.all()
    assert tracker.track([]) == []
    assert not logits


def test_bfloat16_runs(sam2, torch):
    """As on an accelerator: masks of a prompt frame alone keep float32."""
    from tokenization.devices import Device

    device = Device(dataclasses.replace(RUNNING, precision="bfloat16"))
    tracker = sam2.batched.BatchedTracker(
        "sam2", sam2.tracker.Sam2Model(sam2.model), device, RUNNING
    )
    (labels,) = tracker.track([moving(3, (1, 2), seed=5)])
    assert labels.any(axis=(1, 2)).all()


def test_checkpoints_in_the_official_format(sam2, torch, tmp_path):
    from tokenization.weights import WeightsError

    path = tmp_path / "sam2.1_hiera_tiny.pt"
    torch.save({"model": sam2.model.state_dict()}, path)
    loaded = sam2.tracker.build_model(SETTINGS, sam2.device, path)
    for name, tensor in sam2.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    build = functools.partial(sam2.tracker.build_model, device=sam2.device, path=path)
    with pytest.raises(WeightsError, match=r"tiny\.pt is no checkpoint of SAM 2\.1 small"):
        build(dataclasses.replace(SETTINGS, size="small"))
    path.write_bytes(b"no checkpoint")
    with pytest.raises(WeightsError, match=r"is no checkpoint of SAM 2\.1 tiny"):
        build(SETTINGS)
