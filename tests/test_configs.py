"""Every file under configs/ is locked, imports little, and fits the settings it is for."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

from tokenization.extract import ExtractSettings
from tokenization.world.scenes import WorldSettings
from trajvit_jax import config as configs
from trajvit_jax.data.augment import AugmentSettings
from trajvit_jax.data.packing import PackingSettings
from trajvit_jax.experiment import ExperimentSettings
from trajvit_jax.llm.experiment import VideoLLMExperiment
from trajvit_jax.models.settings import (
    FED_TRAJVIT,
    NAMES,
    AutoMergeSettings,
    ModelSettings,
    RLTSettings,
    TokenLearnerSettings,
)
from trajvit_jax.recipe import ENCODER_ABLATIONS

ROOT = Path(__file__).parent.parent / "configs"
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))
PRETRAINING = (
    "panda2m.py",
    "panda4m.py",
    "panda8m.py",
    "panda8m_datacomp50m.py",
    "datacomp50m.py",
    "ablation880k.py",
    "panda8m_from_images.py",
)
PARTS = {name: {"": ExperimentSettings} for name in PRETRAINING} | {
    "demo.py": {"": ExperimentSettings},
    "pretrained_demo.py": {"": ExperimentSettings},
    "real_and_world.py": {"": ExperimentSettings},
    "comparison.py": {"": ExperimentSettings},
    "models.py": {"model": ModelSettings},
    "tokenization/classical.py": {"": ExtractSettings},
    "tokenization/paper.py": {"": ExtractSettings},
    "tokenization/released.py": {"": ExtractSettings},
    "tokenization/pretrained_demo.py": {"": ExtractSettings},
    "tokenization/demo.py": {"world": WorldSettings, "extract": ExtractSettings},
    "tokenization/comparison.py": {"world": WorldSettings, "extract": ExtractSettings},
    "tokenization/real_and_world.py": {"world": WorldSettings, "extract": ExtractSettings},
    "tokenization/world_quality.py": {"world": WorldSettings},
    "videollm/llama3_8b.py": {"": VideoLLMExperiment},
    "videollm/world.py": {"world": WorldSettings, "extract": ExtractSettings},
}


EVALUATIONS = tuple(name for name in FILES if name.startswith("eval/"))


@pytest.mark.parametrize("name", EVALUATIONS)
def test_config_of_an_evaluation_fits_its_protocol(name):
    config = configs.load(str(ROOT / name))
    assert config.is_locked
    values = dict(config)
    protocol = importlib.import_module(f"trajvit_jax.evals.{values.pop('protocol')}").PROTOCOL
    assert isinstance(configs.to_settings(protocol.settings, values), protocol.settings)


@pytest.mark.parametrize("name", [name for name in FILES if name not in EVALUATIONS])
def test_config_fits_its_settings(name):
    config = configs.load(str(ROOT / name))
    assert config.is_locked
    for part, kind in PARTS[name].items():
        assert isinstance(configs.to_settings(kind, config[part] if part else config), kind)


@pytest.mark.parametrize("name", FILES)
def test_config_tells_its_command_its_cost_and_what_to_expect(name):
    text = ast.get_docstring(ast.parse((ROOT / name).read_text("utf-8")))
    assert re.search(r"^Commands?\b", text, re.M)
    assert re.search(r"^(Cost\b|Planned for )", text, re.M)
    expected = r"\bExpected\b|[Tt]he paper's results? \(|^(Paper, |The paper draws )"
    assert re.search(expected, text, re.M)


@pytest.mark.parametrize("name", FILES)
def test_config_imports_only_the_config_reader_and_settings(name):
    tree = ast.parse((ROOT / name).read_text("utf-8"))
    modules = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules <= {"__future__", "dataclasses", "ml_collections", "trajvit_jax.config"} | {
        "trajvit_jax.models.settings",
        "trajvit_jax.recipe",
        "trajvit_jax.small_recipe",
    }


def test_demo_arguments_reach_the_experiment():
    config = configs.load(f"{ROOT}/demo.py:model=vit3d,records=x,frames=16,trajectories=99,steps=7")
    settings = configs.to_settings(ExperimentSettings, config)
    assert (settings.model.name, settings.model.frames, settings.steps) == ("vit3d", 16, 7)
    assert settings.model.trajvit.max_trajectories == 99
    assert settings.data.train == settings.data.evaluation_folder == "x"


def resolve(name: str) -> ExperimentSettings:
    return configs.to_settings(ExperimentSettings, configs.load(f"{ROOT}/{name}"))


@pytest.mark.parametrize("name", PRETRAINING)
def test_configs_load_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve(f"{name}:size=S").model.encoder.width == 384


@pytest.mark.parametrize(
    ("name", "steps", "streams"),
    [
        ("panda2m.py", 234_375, {"video": (16, 256, 1)}),
        ("panda4m.py", 468_750, {"video": (16, 256, 1)}),
        ("panda8m.py", 937_500, {"video": (16, 256, 1)}),
        ("panda8m_datacomp50m.py", 1_303_711, {"video": (16, 256, 64), "image": (1, 4096, 25)}),
        ("datacomp50m.py", 366_211, {"image": (1, 4096, 1)}),
    ],
)
def test_the_paper_s_recipe(name, steps, streams):
    """Table 7: batches, 30 epochs of which one warms up, AdamW, ViT-Large at 224 pixels."""
    settings = resolve(name)
    assert settings.steps == steps
    assert {s.name: (s.frames, s.batch, s.weight) for s in settings.data.streams} == streams
    assert all(stream.packing is not None for stream in settings.data.streams)
    model, rate = settings.model, settings.optimizer
    assert (model.image_size, model.encoder.width, model.encoder.depth) == (224, 1024, 24)
    assert (model.dtype, model.text.length, model.projection) == ("bfloat16", 77, 256)
    assert (rate.learning_rate, rate.weight_decay, rate.clip_norm) == (1e-4, 0.02, 1.0)
    assert (rate.beta1, rate.beta2, rate.final_fraction) == (0.9, 0.999, 0.01)
    assert round(rate.warmup_fraction * steps) == round(steps / 30)
    assert settings.step.augment == AugmentSettings()


@pytest.mark.parametrize(
    ("name", "saved", "evaluated"),
    [
        ("panda2m.py", 3906, 7812),
        ("panda8m.py", 15_625, 31_250),
        ("ablation880k.py", 1719, 3438),  # an epoch has 3,437.5 steps
        ("panda8m.py:videos=300000", 1000, 1000),  # not more often, though an epoch has 1,172
        ("panda2m.py:epochs=1", 3906, 0),
        ("panda2m.py:steps=300", 300, 0),
    ],
)
def test_checkpoints_follow_the_length_of_a_run(name, saved, evaluated):
    """Twice an epoch, a state of TrajViT-L being 5.2 GB; evaluations are at saved steps."""
    settings = resolve(name)
    assert (settings.checkpoint_every, settings.evaluate_every) == (saved, evaluated)


@pytest.mark.parametrize(
    ("videos", "images", "batch", "a_round"),
    [
        (3_000_000, 1_000_000, 64, 200),
        (8_000_000, 5_000_000, 256, 200),
        (200_000, 50_000_000, 256, 200),  # one step of videos to 15.6 of images
        (60_000, 50_000_000, 256, 200),  # to 52
        (10_000, 50_000_000, 256, 314),  # to 312.5
        (8_000_000, 200_000, 32, 5_121),  # 5,120 of videos to one of images
        (1_000_000, 16_000_000, 256, 2),
    ],
)
def test_both_streams_of_a_joint_run_see_all_their_records_equally_often(
    videos, images, batch, a_round
):
    settings = resolve(f"panda8m_datacomp50m.py:videos={videos},images={images},batch={batch}")
    epochs = {}
    weights = sum(stream.weight for stream in settings.data.streams)
    for stream, records in zip(settings.data.streams, (videos, images), strict=True):
        share = stream.weight / weights
        epochs[stream.name] = settings.steps * share * stream.batch / records
    assert epochs == pytest.approx({"video": 30, "image": 30}, rel=0.01)
    assert weights <= a_round


def test_arguments_of_a_run():
    settings = resolve(
        "panda4m.py:model=vit3d,size=B,records=/a:/b,evaluation=/c,batch=512,epochs=10,"
        "micro_batches=4"
    )
    assert (settings.model.name, settings.model.encoder.width) == ("vit3d", 768)
    [stream] = settings.data.streams
    assert [source.path for source in stream.sources] == ["/a", "/b"]
    assert (stream.batch, stream.packing) == (512, None)
    assert settings.data.evaluation_folder == "/c"
    assert settings.steps == round(4e6 * 10 / 512)
    assert settings.step.micro_batches == 4
    settings = resolve("panda4m.py:rows=3,slots=400,tokens=127,steps=7")
    assert settings.data.streams[0].packing == PackingSettings(8, 3, 400)
    assert settings.model.trajvit.max_trajectories == 127
    for name in ("vit", "vit3d"):
        assert resolve(f"datacomp50m.py:model={name}").model.vit3d.tubelet == 1
    for argument, fused in (("", False), (",fuse", True)):
        own = resolve(f"panda4m.py:model=token_learner{argument}").model.token_learner
        assert own == TokenLearnerSettings(fuse=fused)


def test_rows_of_rlt_and_tokens_of_automerge_are_those_named():
    assert resolve("panda4m.py:model=rlt").model.rlt == RLTSettings()
    assert resolve("panda4m.py:model=rlt,debug").model.rlt == RLTSettings()
    for debug in ("", ",debug"):
        rows = resolve(f"panda4m.py:model=rlt,group=8,slots=6000{debug}").model.rlt
        assert (rows.group, rows.slots) == (8, 6000)
        merged = resolve(f"panda4m.py:model=automerge,tokens=99{debug}").model.automerge
        assert merged.tokens == 99
    assert resolve("panda4m.py:model=rlt,slots=900").model.rlt == RLTSettings(group=1, slots=900)
    images = resolve("datacomp50m.py:model=rlt,group=4,slots=790").model.rlt
    assert images == RLTSettings(group=4, slots=790)
    with pytest.raises(ValueError, match="group=8 of rlt needs slots"):
        resolve("panda4m.py:model=rlt,group=8")
    assert resolve("panda4m.py:model=automerge").model.automerge == AutoMergeSettings()


@pytest.mark.parametrize("name", [*NAMES, *FED_TRAJVIT])
def test_every_model_of_the_paper_s_tables_has_a_run(name):
    folder = "datacomp50m.py" if name == "vit" else "panda4m.py"
    settings = resolve(f"{folder}:model={name},size=B")
    assert settings.model.name == FED_TRAJVIT.get(name, name)
    [stream] = settings.data.streams
    assert (stream.packing is not None) == (settings.model.name == "trajvit")
    one = configs.load(f"{ROOT}/models.py:model={name},size=B").model
    assert one.name == settings.model.name


@pytest.mark.parametrize("name", [*NAMES, *FED_TRAJVIT])
def test_every_model_is_compared_small(name):
    if name == "vit":
        with pytest.raises(ValueError, match="unknown model 'vit'"):
            resolve("comparison.py:model=vit")
        return
    settings = resolve(f"comparison.py:model={name}")
    model = settings.model
    assert (model.image_size, model.frames, model.encoder.width) == (112, 8, 192)
    variant = name if name in FED_TRAJVIT else "trajectories"
    assert {Path(source.path).parent.name for source in settings.data.train_sources} == {variant}
    assert resolve(f"comparison.py:model={name},steps=7").optimizer == settings.optimizer


@pytest.mark.parametrize("name", ["classical", "paper", "released"])
def test_an_extraction_of_millions_writes_larger_shards(name):
    for argument, size in (("", 64), (":shard_size=1000", 1000)):
        config = configs.load(f"{ROOT}/tokenization/{name}.py{argument}")
        assert configs.to_settings(ExtractSettings, config).shard_size == size


@pytest.mark.parametrize("name", ["ablation880k.py", "tokenization/paper.py"])
def test_every_extraction_of_an_ablation_is_one(name):
    """Those that the configs name beside the rows of the paper's tables."""
    text = (ROOT / name).read_text()
    named = re.findall(r":((?:segmenter|tracker|resolution|split|limit|iou)=[\w=,.]+)", text)
    assert {"resolution=1024", "segmenter=patches,tracker=patches,resolution=224"} <= set(named)
    for argument in named:
        values = configs.load(f"{ROOT}/tokenization/paper.py:{argument}")
        own = configs.to_settings(ExtractSettings, values).pipeline
        parsed = dict(pair.split("=") for pair in argument.split(","))
        for key in ("segmenter", "tracker", "split"):
            assert getattr(own, key) == parsed.get(key, getattr(own, key))
        assert own.max_side == int(parsed.get("resolution", 512))


def test_the_paper_s_ablations():
    plain = resolve("ablation880k.py")
    assert (plain.model.encoder.width, plain.steps) == (768, 103_125)
    [packing] = [stream.packing for stream in plain.data.streams]
    for name, changed in ENCODER_ABLATIONS.items():
        settings = resolve(f"ablation880k.py:ablation={name}")
        assert (settings.model == plain.model) == (not changed)
        [own] = [stream.packing for stream in settings.data.streams]
        assert own.slots == packing.slots * settings.model.trajvit.resampler.queries


@pytest.mark.parametrize("name", ["ablation880k.py", "comparison.py", "models.py"])
def test_an_ablation_that_a_model_lacks_is_named(name):
    with pytest.raises(ValueError, match="ablation=mean is one of trajvit, not of vit3d"):
        configs.load(f"{ROOT}/{name}:model=vit3d,ablation=mean")
    with pytest.raises(ValueError, match="unknown ablation 'men': did you mean 'mean'"):
        configs.load(f"{ROOT}/{name}:ablation=men")
    configs.load(f"{ROOT}/{name}:model=tracking_only,ablation=mean")


def test_the_transfer_from_images_says_what_it_starts_from():
    settings = resolve("panda8m_from_images.py")
    assert (settings.model.name, settings.initial) == ("vit3d", "runs/images")
    assert resolve("panda4m.py:initial=/runs/other").initial == "/runs/other"
    assert resolve("panda4m.py").initial == ""


def test_segments_of_all_frames_have_rows_as_long_as_a_video_may_need():
    [stream] = resolve("panda4m.py:model=segmentation_only").data.streams
    assert stream.packing == PackingSettings(8, 8, 1024)
    # What the configs name where nothing is to be cut: 16 frames of 128 segments, and CLS.
    whole = resolve("ablation880k.py:model=segmentation_only,tokens=2048,slots=2049")
    assert whole.data.streams[0].packing == PackingSettings(8, 8, 16 * 128 + 1)
    assert whole.model.trajvit.max_trajectories == 16 * 128


@pytest.mark.parametrize("config", ["panda4m.py", "comparison.py", "models.py"])
def test_segments_of_single_frames_are_told_which_frame_they_are_of(config):
    def position(model):
        return configs.load(f"configs/{config}:model={model}").model.trajvit.get("position")

    assert position("segmentation_only") == "boxes_and_frames"
    assert position("tracking_only") in (None, "boxes")


def test_debug_runs_compile_quickly():
    assert resolve("panda4m.py").optimize
    assert not resolve("panda4m.py:debug").optimize
    assert resolve("panda4m.py:model=trajvit,size=L,debug=True") == resolve("panda4m.py:debug")


@pytest.mark.parametrize(
    ("name", "count"),
    [
        *((f"configs/{name}", 2) for name in PRETRAINING),
        ("README.md", 2),
        ("launch/README.md", 5),
        ("launch/run_pod.sh", 2),
        ("launch/slurm.sbatch", 1),
        ("launch/kubernetes.yaml", 1),
    ],
)
def test_commands_that_are_shown_name_records_to_evaluate_on(name, count):
    """Those of `make demo`, and IMAGES and VIDEOS, have the split `test` themselves."""
    text = re.sub(r"\\+\n(?=\S)", "", (ROOT.parent / name).read_text("utf-8"))  # goes on behind it
    shown = re.findall(r"--config=configs/([\w/]+\.py:[^\s`]+)", text)
    shown = [one for one in shown if one.partition(":")[0] in PRETRAINING]
    assert len(shown) >= count
    for one in shown:
        data = resolve(one).data
        own = data.evaluation_folder in ("runs/demo/records", "IMAGES", "VIDEOS")
        assert data.evaluation or own, one


def test_a_debug_run_takes_the_other_arguments_too():
    plain = resolve("panda8m_datacomp50m.py:debug")
    shapes = [(one.batch, one.packing.group, one.packing.slots) for one in plain.data.streams]
    assert shapes == [(16, 2, 30), (16, 2, 30)] and (plain.steps, plain.data.threads) == (2, 2)
    own = resolve(
        "panda8m_datacomp50m.py:debug,batch=64,image_batch=128,group=4,rows=2,slots=48,"
        "image_slots=60,threads=5,tokens=9,steps=7"
    )
    videos, images = own.data.streams
    assert (videos.batch, videos.packing) == (64, PackingSettings(4, 2, 48))
    assert (images.batch, images.packing) == (128, PackingSettings(4, 1, 60))
    assert (own.data.threads, own.steps, own.model.trajvit.max_trajectories) == (5, 7, 9)
    assert own.model.encoder == plain.model.encoder


@pytest.mark.parametrize("name", ["panda4m.py", "panda4m.py:debug"])
def test_a_command_changes_how_a_model_is_computed(name):
    config = configs.load(f"{ROOT}/{name}")
    config.model.deterministic, config.model.encoder.remat = True, "layers"
    model = configs.to_settings(ExperimentSettings, config).model
    assert model.deterministic and model.encoder.remat == "layers"


def test_rows_of_images_have_an_argument_of_their_own():
    joint = resolve("panda8m_datacomp50m.py:slots=800,image_slots=500").data.streams
    assert [one.packing.slots for one in joint] == [800, 500]
    [images] = resolve("datacomp50m.py:image_slots=500").data.streams
    assert images.packing == PackingSettings(8, 1, 500)


def test_slots_grow_with_the_group():
    joint = resolve("panda8m_datacomp50m.py:group=4").data.streams
    shapes = [(one.packing.group, one.packing.rows, one.packing.slots) for one in joint]
    assert shapes == [(4, 1, 448), (4, 1, 328)]
    [images] = resolve("datacomp50m.py:group=16,slots=900").data.streams
    assert (images.packing.group, images.packing.slots) == (16, 900)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("panda4m.py:modle=vit3d", "'modle': did you mean 'model'"),
        ("panda4m.py:model=vitt", "unknown model 'vitt': did you mean 'vit'"),
        ("panda4m.py:model=vit", "vit reads images"),
        ("panda4m.py:size=XL", "unknown size 'XL'"),
        ("panda4m.py:epochs=0", "epochs must be at least 1"),
        ("panda4m.py:group=0", "group must be at least 1, got 0"),
        ("panda4m.py:batch=100", "batch=100 is not a multiple of group=8"),
        ("datacomp50m.py:group=3", "image_batch=4096 is not a multiple of group=3"),
        ("panda4m.py:image_records=x", "images=0 and image_records='x' belong together"),
        ("panda4m.py:debug,batch=15", "batch=15 is not a multiple of group=2"),
        ("panda4m.py:model=rlt,group=3,slots=600", "batch=256 is not a multiple of group=3"),
        ("panda4m.py:model=tome,fuse", "fuse is of token_learner, not of tome"),
        ("panda4m.py:group=8,model=vit3d", "group is of trajvit and rlt, not of vit3d"),
        ("panda4m.py:model=automerge,slots=9", "slots is of trajvit and rlt, not of automerge"),
        ("panda4m.py:model=rlt,tokens=9", "tokens is of trajvit and automerge, not of rlt"),
        ("panda4m.py:model=rlt,rows=2", "rows is of trajvit, not of rlt"),
        ("datacomp50m.py:model=vit,image_slots=9", "image_slots is of trajvit, not of vit"),
        ("panda4m.py:image_slots=600", "image_slots=600, but the run has no images"),
        ("datacomp50m.py:slots=600,image_slots=700", "slots and image_slots are the same"),
        ("panda8m_datacomp50m.py:model=vit3d", "vit3d does not train on images and videos"),
    ],
)
def test_arguments_that_do_not_fit_are_named(name, message):
    with pytest.raises(ValueError, match=message):
        resolve(name)
