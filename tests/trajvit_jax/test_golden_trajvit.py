"""The released TrajViT's numbers: outputs, everything on the way to them, and a training step."""

from __future__ import annotations

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.array_names import below
from trajvit_jax.convert import official, released
from trajvit_jax.convert.pieces import paths, write
from trajvit_jax.convert.sizes import released_settings
from trajvit_jax.models.tokens import Rows
from trajvit_jax.models.transformer import encode_rows, trace_stack
from trajvit_jax.models.video_text import normalize_pixels
from trajvit_jax.ops.mask_pooling import feature_map, project_stage

KINDS = ("out", "out_image", "out_t8", "out_t32")
# Outputs for which each switch of `encode_video` is both on and off.
BY_THE_PUBLIC_ENTRY = (
    "out/rot1_bb0_eager_once",
    "out/rot0_bb1_sdpa_twice",
    "out_image/rot1_bb1_sdpa_once",
    "out_t32/rot0_bb0_eager_twice",
)
# Outputs that the plain formulas must give too.
BY_THE_PLAIN_FORMULAS = ("out/rot1_bb0_eager_once", "out_image/rot0_bb1_sdpa_twice")


@dataclasses.dataclass(frozen=True)
class Clip:
    """What a released model reads; channels last."""

    video: np.ndarray
    mask: np.ndarray
    graph: np.ndarray

    def encode(self, state, **variant):
        video = self.video.transpose(0, 1, 4, 2, 3)
        return official.encode_video(state, video, self.mask, self.graph, **variant)

    def tokenize(self, tokenizer):
        """Tokens and the named intermediates."""
        video, mask, graph = map(jnp.asarray, (self.video, self.mask, self.graph))
        features = official.read_frames_jit(tokenizer.appearance.backbone, video)
        return official.tokenize_jit(tokenizer, features, mask, graph, ids=self.ids)

    @property
    def ids(self):
        return int(self.mask.max()) + 1


@dataclasses.dataclass(frozen=True)
class Released:
    """The golden file: all arrays, the weights among them, and the clips."""

    arrays: dict[str, np.ndarray]
    state: dict[str, np.ndarray]
    heads: int
    clips: dict[str, Clip]

    def model(self, *, rotary=True, **variant):
        settings = released_settings(self.state, heads=self.heads, rotary=rotary, **variant)
        return official.load(self.state, settings)


def without(arrays, prefix):
    return {k: v for k, v in arrays.items() if not k.startswith(prefix)}


def channels_last(x):
    return np.moveaxis(x, -3, -1)


@pytest.fixture(scope="module")
def tiny_trajvit(golden):
    g = golden("trajvit_tiny")
    pixels = np.asarray(normalize_pixels(jnp.asarray(channels_last(g["in/video_u8"]))))
    whole = Clip(pixels, g["in/segmask"].astype(np.int32), g["in/graph"])
    clips = {
        "out": whole,
        "out_image": Clip(pixels[:, :1], whole.mask[:, :1], g["in_image/graph"]),
        "out_t8": Clip(pixels[:, :8], whole.mask[:, :8], whole.graph[..., :8]),
        "out_t32": Clip(
            np.concatenate([pixels, pixels[:, ::-1]], 1),
            np.concatenate([whole.mask, whole.mask[:, ::-1]], 1),
            np.concatenate([whole.graph, whole.graph[..., ::-1]], 2),
        ),
    }
    return Released(g, below(g, "sd/"), int(g["heads"]), clips)


@dataclasses.dataclass(frozen=True)
class Variant:
    """What the name of an output says of how it was made."""

    rotary: bool
    boxes: bool
    mask_padding: bool
    encoder_passes: int

    @classmethod
    def of(cls, name):
        rotary, boxes, padding, passes = name.partition("/")[2].split("_")
        twice = {"once": 1, "twice": 2}[passes]
        return cls(rotary == "rot1", boxes == "bb1", padding == "eager", twice)


def require(arrays, name):
    """Goldens of another folder may be of fewer variants; the shipped ones may not."""
    if name not in arrays and "TRAJVIT_GOLDENS" in os.environ:
        pytest.skip(f"the file holds no {name}")
    assert name in arrays


def check_public_entry(tiny, assert_golden, name, impl):
    require(tiny.arrays, name)
    variant = dataclasses.asdict(Variant.of(name))
    clip = tiny.clips[name.partition("/")[0]]
    actual = clip.encode(tiny.state, heads=tiny.heads, impl=impl, **variant)
    assert_golden(actual, tiny.arrays[name], f"{name} {impl}")


@pytest.mark.parametrize("name", BY_THE_PUBLIC_ENTRY)
def test_outputs_by_the_public_entry(tiny_trajvit, assert_golden, name):
    check_public_entry(tiny_trajvit, assert_golden, name, "fast")


@pytest.mark.parametrize("name", BY_THE_PLAIN_FORMULAS)
def test_outputs_by_the_plain_formulas(tiny_trajvit, assert_golden, name):
    check_public_entry(tiny_trajvit, assert_golden, name, "reference")


@pytest.mark.parametrize("rotary", [False, True], ids=["table", "rotary"])
@pytest.mark.parametrize("kind", KINDS)
def test_all_outputs(tiny_trajvit, assert_golden, kind, rotary):
    """As the public entry makes them, but what several have in common is computed once."""
    tiny, clip = tiny_trajvit, tiny_trajvit.clips[kind]
    variants = {n: Variant.of(n) for n in tiny.arrays if n.startswith(f"{kind}/rot{rotary:d}")}
    assert variants
    encoders, tokens = {}, {}
    for name, variant in variants.items():
        if variant.boxes not in tokens:
            model = tiny.model(rotary=rotary, boxes=variant.boxes)
            tokens[variant.boxes] = clip.tokenize(model.tokenizer)[0]
        if variant.encoder_passes not in encoders:
            model = tiny.model(rotary=rotary, encoder_passes=variant.encoder_passes)
            encoders[variant.encoder_passes] = model.encoder
        seen = official.seen_slots(jnp.asarray(clip.graph), mask_padding=variant.mask_padding)
        encoder = encoders[variant.encoder_passes]
        actual = official.encode_jit(encoder, tokens[variant.boxes], seen)
        assert_golden(actual, tiny.arrays[name], name)


def labels_of(clip):
    """Each cell's trajectory: 1 + the row of the graph that has the cell's id in this frame."""
    labels = np.zeros_like(clip.mask)
    for video, number, frame in np.argwhere(clip.graph > 0):
        here = clip.mask[video, frame] == clip.graph[video, number, frame]
        labels[video, frame][here] = 1 + number
    return labels


def one_row(videos, trajectories):
    """Rows of all videos in one row, each with a CLS and all its trajectories."""
    video = np.repeat(np.arange(1, videos + 1), 1 + trajectories)
    query = np.tile([0] + [1] * trajectories, videos)
    row = np.zeros((1, videos), np.int32)
    return Rows(
        *(jnp.asarray(part, jnp.int32) for part in (video[None, None], query[None, None], row))
    )


@pytest.mark.parametrize(
    ("boxes", "packed", "impl"),
    [(False, False, "fast"), (True, True, "fast"), (True, True, "reference")],
    ids=["centres", "boxes, packed", "boxes, packed, plain formulas"],
)
def test_label_maps_give_the_released_states(tiny_trajvit, assert_golden, boxes, packed, impl):
    """The model's own path: trajectories from label maps, with slots of their own."""
    tiny, clip = tiny_trajvit, tiny_trajvit.clips["out"]
    videos, trajectories = clip.graph.shape[:2]
    settings = released_settings(tiny.state, heads=tiny.heads, rotary=True, boxes=boxes, impl=impl)
    own = dataclasses.replace(settings.trajvit, max_trajectories=trajectories, attend_padding=False)
    model = official.load(tiny.state, dataclasses.replace(settings, trajvit=own))
    rows, labels = None, labels_of(clip)
    if packed:
        rows, first = one_row(videos, trajectories), np.arange(videos) * (1 + trajectories)
        labels = np.where(labels > 0, labels + first[:, None, None, None], 0)

    @nnx.jit
    def run(model, video, labels, rows):
        tokens, _ = model.tokenizer(video, labels, rows, train=False)
        return encode_rows(model.encoder, tokens, videos, impl=impl), tokens.video

    states, video = run(model, jnp.asarray(clip.video), jnp.asarray(labels), rows)
    used = np.asarray(video).reshape(videos, -1) > 0
    np.testing.assert_array_equal(used[:, 1:], (clip.graph > 0).any(-1))
    assert not used.all() and used[:, 0].all()
    states = np.asarray(states).reshape(videos, 1 + trajectories, -1)
    assert_golden(states[used], tiny.arrays[f"out/rot1_bb{boxes:d}_eager_once"][used])


def test_resnet_and_feature_map(tiny_trajvit, assert_golden):
    g, clip = tiny_trajvit.arrays, tiny_trajvit.clips["out"]
    appearance = tiny_trajvit.model().tokenizer.appearance
    shown = len(g["mid/resnet_h0_frames0to3"])
    frames = jnp.asarray(clip.video).reshape(-1, *clip.video.shape[2:])

    @nnx.jit
    def run(appearance, frames):
        projection = appearance.projection()
        stem = appearance.backbone.embed(frames[:shown], train=False)
        stages = appearance.backbone(frames, train=False)
        first = [stage[None, :shown] for stage in stages]
        linear = [project_stage(stage[0], projection, i) for i, stage in enumerate(first)]
        return [stem, *stages], linear, feature_map(first, projection, clip.mask.shape[2:])

    hidden, linear, summed = run(appearance, frames)
    for level, stage in enumerate(hidden):
        expected = channels_last(g[f"mid/resnet_h{level}_frames0to3"])
        assert_golden(stage[:shown], expected, f"h{level}")
    assert_golden(hidden[-1], channels_last(g["mid/resnet_h4_all"]), "h4 of all frames")
    for level, stage in enumerate(linear, start=1):
        assert_golden(
            stage, g[f"mid/stage{level}_linear_ln_frames0to3"], f"projected stage {level}"
        )
    assert_golden(summed[0], channels_last(g["mid/feature_map_frames0to3"]), "feature map")


@pytest.mark.parametrize("boxes", [False, True], ids=["centres", "boxes"])
@pytest.mark.parametrize("rotary", [False, True], ids=["table", "rotary"])
def test_what_comes_before_the_encoder(tiny_trajvit, assert_golden, rotary, boxes):
    g, clip = tiny_trajvit.arrays, tiny_trajvit.clips["out"]
    tokenizer = tiny_trajvit.model(rotary=rotary, boxes=boxes).tokenizer
    tokens, named = clip.tokenize(tokenizer)

    # Theirs are by frame, then by id or trajectory.
    def by_frame(name):
        return np.moveaxis(named[name], 2, 1)

    assert_golden(by_frame("pooled"), g["mid/pooled_per_mask"], "pooled")
    assert_golden(named["gathered"], g["mid/per_frame_traj_feature"], "gathered")
    assert clip.ids == g["mid/onehot_shape"][2]
    # Id 0 is no trajectory; ours has no coordinates of it.
    coordinates = g["mid/boxes" if boxes else "mid/centers"]
    assert_golden(by_frame("coordinates")[:, :, 1:], coordinates[:, :, 1:], "coordinates")
    embedded, lift = tokenizer.position.features(jnp.asarray(coordinates))
    assert lift is None
    assert_golden(embedded, g[f"mid/coord_embed_bb{boxes:d}"], "features of coordinates")
    assert_golden(
        named["appearance"][:, :, 0], g[f"mid/appearance_tokens_rot{rotary:d}"], "appearance"
    )
    position = g[f"mid/position_tokens_rot{rotary:d}_bb{boxes:d}"]
    assert_golden(named["position"][:, :, 0], position, "position")
    assert_golden(tokens, g[f"mid/appearance_tokens_rot{rotary:d}"] + position, "tokens")


def test_states_of_the_encoder(tiny_trajvit, assert_golden):
    g, clip = tiny_trajvit.arrays, tiny_trajvit.clips["out"]
    encoder = tiny_trajvit.model(encoder_passes=2).encoder
    seen = official.seen_slots(jnp.asarray(clip.graph), mask_padding=True)
    np.testing.assert_array_equal(seen[:, 0, 0, 1:], g["mid/attn_mask"])
    tokens = g["mid/appearance_tokens_rot1"] + g["mid/position_tokens_rot1_bb0"]
    x = official.with_cls(encoder, jnp.asarray(tokens))
    first = nnx.jit(trace_stack)(encoder.layers, x, seen)
    assert_golden(first.states, g["mid/encoder_pass1_hidden"], "states")
    assert_golden(nnx.jit(type(encoder).run)(encoder, x, seen), g["mid/encoder_pass2_out"], "out")


def test_training_step(tiny_trajvit, assert_golden):
    g, clip = tiny_trajvit.arrays, tiny_trajvit.clips["out"]
    model = tiny_trajvit.model()
    video, mask, graph = map(jnp.asarray, (clip.video, clip.mask, clip.graph))
    seen = official.seen_slots(graph, mask_padding=True)

    @nnx.jit
    def step(model):
        def loss_of(model):
            backbone = model.tokenizer.appearance.backbone
            features = official.read_frames(backbone, video, train=True)
            tokens, _ = official.tokenize(model.tokenizer, features, mask, graph, ids=clip.ids)
            out = official.encode(model.encoder, tokens, seen)
            return (out * g["train/loss_weight"]).sum() / 100, out

        return nnx.value_and_grad(loss_of, has_aux=True)(model)

    (loss, out), gradients = step(model)
    assert_golden(out, g["train/out"], "output")
    assert_golden(loss, g["train/loss"], "loss")

    settings = released_settings(tiny_trajvit.state, heads=tiny_trajvit.heads, rotary=True)
    pieces = list(released.trajvit(settings))
    state = nnx.to_pure_dict(gradients)
    leaves = jax.tree_util.tree_leaves_with_path(state)
    ours = {".".join(str(key.key) for key in path): leaf for path, leaf in leaves}
    named = write([piece for piece in pieces if piece.ours in ours], ours)
    expected = below(g, "train/grad/")
    assert named.keys() == expected.keys()
    for name, gradient in expected.items():
        assert_golden(named[name], gradient, name)

    named = write(pieces, paths(model))
    statistics = {
        name: array
        for name, array in below(g, "train/buffer_after/").items()
        if not name.endswith("num_batches_tracked")
    }
    assert statistics
    for name, array in statistics.items():
        assert_golden(named[name], array, name)


# Of each ablation: arrays of the standard weights that it lacks, and its switches.
ABLATIONS = {
    "latent2_sdpa": ((), {"mask_padding": False}),
    "latent4_sdpa": ((), {"mask_padding": False}),
    "resnet_lastlayer": ((), {"hierarchical": False}),
    "app_mean_pool": (("appearance_token_mapper.",), {}),
    "latent_transformer": ((), {}),
    "perceiver_depth1": (
        ("appearance_token_mapper.layers.1.", "pos_encoder.motion_token_mapper.layers.1."),
        {},
    ),
    "final_layernorm": ((), {}),
    "pos_mlp": (("pos_encoder.",), {}),
    "pos_sincos": (("pos_encoder.",), {}),
    "pool_mean": ((), {}),
    "roi2": ((), {"roi": True}),
}


def test_every_ablation_is_covered(golden):
    tags = below(golden("trajvit_tiny_ablations"), "out/")
    assert tags.keys() <= ABLATIONS.keys()
    assert "TRAJVIT_GOLDENS" in os.environ or tags.keys() == ABLATIONS.keys()


@pytest.mark.parametrize("tag", ABLATIONS)
def test_ablations(golden, tiny_trajvit, assert_golden, tag):
    g = golden("trajvit_tiny_ablations")
    require(g, f"out/{tag}")
    lacks, switches = ABLATIONS[tag]
    state = tiny_trajvit.state
    for prefix in lacks:
        state = without(state, prefix)
    state = state | below(g, f"{tag}/sd/")
    clip = tiny_trajvit.clips["out"]
    actual = clip.encode(state, heads=tiny_trajvit.heads, **switches)
    assert_golden(actual, g[f"out/{tag}"], tag)

    parts = below(g, f"mid/{tag.partition('_')[0]}_")
    if not parts:
        return
    settings = released_settings(state, heads=tiny_trajvit.heads, rotary=True)
    tokenizer = official.load(state, settings).tokenizer
    _, named = clip.tokenize(tokenizer)
    for name, expected in parts.items():
        vectors = named[name.removesuffix("_tokens")].sum(2)
        assert_golden(vectors, expected, f"{tag} {name}")


def test_a_video_without_trajectories_has_its_cls(tiny_trajvit):
    clip = tiny_trajvit.clips["out"]
    none = np.zeros((len(clip.graph), 0, clip.graph.shape[2]), np.int32)
    clip = dataclasses.replace(clip, graph=none)
    alone = clip.encode(tiny_trajvit.state, heads=tiny_trajvit.heads)
    assert alone.shape[1] == 1 and np.isfinite(alone).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video": lambda x: (255 * x).astype(np.uint8)}, "pixels must be normalized floats"),
        ({"mask": lambda x: x[:, :, :0]}, "nothing to read"),
        ({"mask": lambda x: x.astype(np.int64) + 2**31}, r"not within 0\.\.65535"),
        ({"graph": lambda x: x + 100}, "graph names id 109, the masks end at 9"),
        ({"mask": lambda x: x.astype(np.float32)}, "mask must hold whole numbers"),
        ({"video": lambda x: np.where(x > 1, np.nan, x)}, "pixels are not finite"),
        ({"graph": lambda x: x[..., :3]}, "videos or frames differ"),
    ],
)
@pytest.mark.usefixtures("annotations_unchecked")
def test_inputs_that_cannot_be_are_named(tiny_trajvit, changes, message):
    clip = tiny_trajvit.clips["out"]
    changed = {name: change(getattr(clip, name)) for name, change in changes.items()}
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(clip, **changed).encode(tiny_trajvit.state, heads=tiny_trajvit.heads)
