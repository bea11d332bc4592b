"""The command: other programs' weights to ours and back, bit by bit, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
from pathlib import Path

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from tests.traps import Trap
from trajvit_jax.convert import stored
from trajvit_jax.convert.__main__ import main
from trajvit_jax.convert.compatibility import disagreements, is_below
from trajvit_jax.convert.conversion import abstract_model, convert, pieces_of, settings_of
from trajvit_jax.convert.descriptions import is_unused
from trajvit_jax.convert.files import read_state_dict, write_state_dict
from trajvit_jax.convert.kinds import Choices, Layout, recognize
from trajvit_jax.convert.pieces import paths, their_shapes
from trajvit_jax.convert.released import rest_of_clip
from trajvit_jax.convert.report import match
from trajvit_jax.models.settings import (
    EncoderSettings,
    ModelSettings,
    ResNetSettings,
    ViT3DSettings,
)

LAYOUTS = {
    "trajvit": Layout("trajvit"),
    "trajvit-clip": Layout("trajvit", "vision_encoder.", whole=True),
    "vit3d": Layout("vit3d"),
    "vit3d-clip": Layout("vit3d", "vision_encoder.", whole=True),
    "resnet": Layout("resnet", "resnet."),
    "bert": Layout("bert", "bert."),
    "vit": Layout("vit"),
}
GOLDENS = Path(os.environ.get("TRAJVIT_GOLDENS", Path(__file__).parents[1] / "goldens"))


@pytest.fixture(scope="module")
def sizes(tiny):
    """Settings of a small model that a file of each layout is of."""

    def make(layout):
        if layout.kind == "vit":
            return tiny(
                "vit3d",
                frames=1,
                vit3d=ViT3DSettings(patch=8, tubelet=1),
                encoder=EncoderSettings(width=32, depth=2, heads=2, mlp=64),
            )
        settings = tiny(layout.kind if layout.kind == "vit3d" else "trajvit")
        trajvit = dataclasses.replace(
            settings.trajvit,
            position="centers",
            position_features="released",
            resnet=ResNetSettings(8, (8, 16), (1, 2)),
        )
        return dataclasses.replace(settings, trajvit=trajvit)

    return make


@pytest.fixture(scope="module")
def theirs(sizes):
    """Random arrays as a file of a layout has them."""

    def make(layout):
        settings, rng = sizes(layout), np.random.default_rng(0)
        shapes = their_shapes(pieces_of(settings, layout), paths(abstract_model(settings)))
        state = {n: rng.normal(size=shape).astype(np.float32) for n, shape in shapes.items()}
        table = state.get(f"{layout.prefix}positional_embeddings_3d")
        if table is not None:
            table[:, -1] = 0  # nothing reads it, and nothing keeps it
        table = state.get("embeddings.position_embeddings")
        if layout.kind == "vit":
            table[:, 0] = 0  # the position of CLS, which is added to CLS
        return state

    return make


@pytest.fixture
def run(tmp_path, capsys):
    """Writes arrays, runs the command; its exit code, folder, output and errors."""

    def run(arrays, *options, name="checkpoint.safetensors"):
        source = tmp_path / name
        write_state_dict(source, arrays)
        folder = tmp_path / "converted"
        heads = ("--heads=2", "--text-heads=2", "--image-size=32")
        code = main([f"--from={source}", f"--to={folder}", *heads, *options])
        return code, folder, *capsys.readouterr()

    return run


def same(actual, expected):
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype, name
        np.testing.assert_array_equal(actual[name], array, err_msg=name)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_there_and_back(theirs, sizes, run, tmp_path, layout):
    state = theirs(layout)
    code, folder, out, err = run(state)
    assert (code, err) == (0, "")
    assert f"used: {len(state)} arrays, which fill" in out
    assert "left over" not in out
    report = (folder / "report.txt").read_text()
    assert f"used: {len(state)} of the {len(state)} arrays" in report
    assert len(out.splitlines()) < len(report.splitlines())
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        [stored.WEIGHTS, stored.SETTINGS, stored.REPORT]
    )
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1
    assert stored.read_folder(folder).layout == layout
    ours = read_state_dict(folder / stored.WEIGHTS)
    model = paths(abstract_model(sizes(layout)))
    assert ours.keys() <= model.keys()
    assert all(array.shape == model[name].shape for name, array in ours.items())
    assert (ours.keys() == model.keys()) == layout.whole
    back = tmp_path / "back.safetensors"
    assert main(["--back", f"--from={folder}", f"--to={back}"]) == 0
    same(read_state_dict(back), state)


@pytest.mark.parametrize("name", ["trajvit-clip", "vit3d-clip"])
def test_a_whole_model_loads_and_runs(theirs, run, name):
    state = theirs(LAYOUTS[name])
    _, folder, _, _ = run({f"module.{key}": array for key, array in state.items()})
    model = stored.load_model(folder)
    assert float(model.temperature[...]) == state["temp"]
    np.testing.assert_array_equal(model.project_text.kernel[...], state["text_proj.weight"].T)
    settings = model.settings
    assert settings.encoder.passes == (2 if name == "trajvit-clip" else 1)
    assert settings.text.cleaning == "released"
    ids = jnp.ones((2, settings.text.length), jnp.int32)
    embedded = nnx.jit(type(model).embed_text)(model, ids, ids.astype(bool))
    assert np.isfinite(np.asarray(embedded)).all()


def test_the_position_of_cls_is_added_to_cls(theirs, run):
    state = theirs(LAYOUTS["vit"])
    state["embeddings.position_embeddings"][:, 0] = 3
    _, folder, _, _ = run(state)
    cls = read_state_dict(folder / stored.WEIGHTS)["encoder.cls"]
    np.testing.assert_array_equal(cls, state["embeddings.cls_token"][0, 0] + 3)


def test_part_of_a_whole_model(theirs, run):
    state = theirs(LAYOUTS["trajvit-clip"])
    code, folder, out, _ = run(state, "--kind=bert")
    assert code == 0
    assert "left over" in out
    assert stored.read_folder(folder).layout == Layout("bert", "text_encoder.")
    with pytest.raises(ValueError, match=r"only text of a model.*initialize_from"):
        stored.load_model(folder)


def test_layers_with_cross_attention_are_not_run(theirs, run):
    state = theirs(LAYOUTS["trajvit-clip"])
    layer, extra = "text_encoder.encoder.layer.1.", "crossattention.self.query.weight"
    state[layer + extra] = np.zeros((32, 32), np.float32)
    state["itm_head.bias"] = np.zeros(2, np.float32)
    code, folder, out, _ = run(state)
    assert code == 0
    text = stored.load_model(folder).settings.text
    assert (text.depth, text.layers_run) == (2, 1)
    assert "left over: 18 arrays that the program they come from never reads" in out
    assert "18 of these are not read by the program" in (folder / stored.REPORT).read_text()
    assert "video encoder: width 32, 2 heads, 2 layers, run 2x" in out
    assert "text encoder: width 32, 2 heads, 1 of 2 layers run" in out


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_dtypes_are_cast(theirs, run, dtype):
    state = {name: array.astype(dtype) for name, array in theirs(LAYOUTS["bert"]).items()}
    code, folder, out, _ = run(state)
    assert code == 0
    assert f"cast: {len(state)} of these" in out
    word = read_state_dict(folder / stored.WEIGHTS)["text.word.embedding"]
    assert word.dtype == np.float32
    expected = state["bert.embeddings.word_embeddings.weight"].astype(np.float32)
    np.testing.assert_array_equal(word, expected)


def test_old_names_of_bert(theirs, run):
    state = theirs(LAYOUTS["bert"])
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    for new, name in old.items():
        state = {key.replace(new, name): array for key, array in state.items()}
    code, _, out, _ = run(state)
    assert code == 0
    assert "left over" not in out


def test_unknown_arrays(run):
    code, folder, _, err = run({"visual.conv1.weight": np.zeros((4, 3, 2, 2), np.float32)})
    assert code == 2
    assert "visual.conv1.weight" in err
    assert "released TrajViT" in err
    assert not folder.exists()


def test_not_of_the_named_kind(theirs, run):
    code, folder, _, err = run(theirs(LAYOUTS["bert"]), "--kind=resnet")
    assert code == 2
    assert err.endswith("not of a resnet but of a bert (Hugging Face BERT); leave --kind out\n")
    assert not folder.exists()
    code, _, _, err = run({"visual.conv1.weight": np.zeros((4, 3, 2, 2), np.float32)}, "--kind=vit")
    assert code == 2
    assert "not of a vit: vit (Hugging Face ViT) has embeddings.patch_embeddings" in err
    assert "this one has visual.conv1.weight" in err


def test_missing_and_misshapen_arrays(theirs, run):
    state = theirs(LAYOUTS["bert"])
    missing = "bert.encoder.layer.1.attention.self.key.bias"
    del state[missing]
    state["bert.embeddings.LayerNorm.weight"] = np.zeros((1, 32), np.float32)
    code, folder, _, err = run(state)
    assert code == 2
    assert missing in err
    assert "embeddings.LayerNorm.weight: (1, 32) in the checkpoint, (32,) in the model" in err
    assert not folder.exists()
    code, folder, _, _ = run(state, "--allow-incomplete")
    assert code == 0
    ours = read_state_dict(folder / stored.WEIGHTS)
    # What a missing array is a part of is left out as a whole.
    assert "text.layers.query_key_value.bias" not in ours
    assert "text.norm.scale" not in ours
    assert "text.layers.query_key_value.kernel" in ours


def test_heads_must_be_said_for_unusual_widths(theirs, tmp_path, capsys):
    source = tmp_path / "bert.npz"
    write_state_dict(source, theirs(LAYOUTS["bert"]))
    assert main([f"--from={source}", f"--to={tmp_path / 'folder'}"]) == 2
    assert "width 32" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".pt", ".npz"])
def test_code_in_a_file_is_not_run(tmp_path, capsys, suffix):
    source, sprung = tmp_path / f"evil{suffix}", tmp_path / "sprung"
    if suffix == ".pt":
        source.write_bytes(pickle.dumps({"model": Trap(sprung)}))
    else:
        np.savez(source, weight=np.array([Trap(sprung)], object), allow_pickle=True)
    assert main([f"--from={source}", f"--to={tmp_path / 'folder'}"]) == 2
    assert "could run code" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == [source.name]


def test_nothing_is_overwritten(theirs, run, tmp_path):
    state = theirs(LAYOUTS["bert"])
    folder = tmp_path / "converted"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    code, _, _, err = run(state)
    assert code == 2
    assert "there already" in err
    assert [p.name for p in folder.iterdir()] == ["notes.txt"]


def test_interrupted(theirs, run, tmp_path, monkeypatch):
    write = stored.write_state_dict

    def interrupt(*arguments):
        write(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(stored, "write_state_dict", interrupt)
    code, _, _, _ = run(theirs(LAYOUTS["bert"]))
    assert code == 130
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_damaged_folder(theirs, run):
    _, folder, _, _ = run(theirs(LAYOUTS["bert"]))
    settings = json.loads((folder / stored.SETTINGS).read_text())
    settings["model"]["encoder"]["depht"] = 3
    (folder / stored.SETTINGS).write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="did you mean 'depth'"):
        stored.load_model(folder)
    with pytest.raises(FileNotFoundError, match="holds no settings"):
        stored.load_model(folder / "elsewhere")


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "python -m trajvit_jax.convert --from=" in capsys.readouterr().out


def test_initialize_from_parts(theirs, sizes, run, random_model):
    settings = sizes(LAYOUTS["trajvit"])
    settings = dataclasses.replace(settings, text=dataclasses.replace(settings.text, layers_run=1))
    model = random_model(settings)
    before = paths(model)
    state = theirs(LAYOUTS["bert"])
    _, folder, _, _ = run(state)
    after = paths(stored.initialize_from(model, folder))
    arrays = read_state_dict(folder / stored.WEIGHTS)
    for name, array in after.items():
        expected = arrays.get(name, before[name])
        if name.startswith("text.layers."):
            expected = expected[:1]
        np.testing.assert_array_equal(array, expected, err_msg=name)
    only = paths(stored.initialize_from(model, folder, parts=["text.word"]))
    changed = [name for name in only if not np.array_equal(only[name], before[name])]
    assert changed == ["text.word.embedding"]
    with pytest.raises(ValueError, match=r"no part 'txt'.*did you mean 'text'"):
        stored.initialize_from(model, folder, parts=["txt"])


def test_initialize_from_what_does_not_fit(theirs, tiny, run, random_model):
    _, folder, _, _ = run(theirs(LAYOUTS["resnet"]))
    with pytest.raises(ValueError, match=r"does not fit the model .*not in the model"):
        stored.initialize_from(random_model(tiny("vit3d")), folder)


@pytest.fixture(scope="module")
def encoder_folder(theirs, tiny, tmp_path_factory):
    """The folder of a released encoder, which its program runs twice and without a last norm."""
    state = {n: a for n, a in theirs(LAYOUTS["trajvit"]).items() if not n.startswith("norm.")}
    folder = tmp_path_factory.mktemp("encoder") / "converted"
    found = convert(state, choices=Choices(heads=2))
    small = dataclasses.replace(found.settings, text=tiny().text)  # a BERT-base otherwise
    stored.write_folder(folder, dataclasses.replace(found, settings=small))
    return folder


@pytest.fixture(scope="module")
def encoder_settings(encoder_folder):
    return stored.read_folder(encoder_folder).settings


def changed(settings, **changes):
    """Settings with some of them changed: encoder={...}, resampler={...}."""
    for group, values in changes.items():
        if group == "resampler":
            values = {"resampler": dataclasses.replace(settings.trajvit.resampler, **values)}
            group = "trajvit"
        values = dataclasses.replace(getattr(settings, group), **values)
        settings = dataclasses.replace(settings, **{group: values})
    return settings


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"encoder": {"passes": 1}}, "encoder.passes: 2 in the folder, 1 in the model"),
        ({"encoder": {"final_norm": True}}, "encoder.final_norm: False in the folder, True"),
        ({"encoder": {"heads": 4}}, "encoder.heads: 2 in the folder, 4 in the model"),
        ({"encoder": {"layer_norm_eps": 1e-6}}, "encoder.layer_norm_eps: 1e-12 in the folder"),
        ({"encoder": {"depth": 3}}, "encoder.depth: 2 in the folder, 3 in the model"),
        ({"trajvit": {"position": "boxes"}}, "trajvit.position: centers in the folder, boxes"),
        ({"trajvit": {"position": "none"}}, "trajvit.position: centers in the folder, none"),
        ({"trajvit": {"position_features": "fourier"}}, "trajvit.position_features: released in"),
        ({"trajvit": {"queries_as": "tokens"}}, "trajvit.queries_as: sum in the folder, tokens"),
        ({"trajvit": {"attend_padding": True}}, "trajvit.attend_padding: False in the folder"),
        ({"trajvit": {"pooling": "corners"}}, "trajvit.pooling: mean in the folder, corners"),
        ({"resampler": {"frame_positions": "learned"}}, "trajvit.resampler.frame_positions: rot"),
        ({"resampler": {"depth": 2}}, "trajvit.resampler.depth: 1 in the folder, 2 in the model"),
    ],
)
def test_settings_that_change_the_numbers_are_compared(
    encoder_folder, encoder_settings, changes, named
):
    arrays = stored.read_folder(encoder_folder).arrays
    model = changed(encoder_settings, **changes)
    found = disagreements(encoder_settings, model, ["tokenizer", "encoder"], arrays)
    assert any(line.startswith(named) for line in found)
    assert disagreements(encoder_settings, model, ["text"], arrays) == []


def test_a_model_of_other_settings_is_refused(encoder_folder, encoder_settings, random_model):
    """Though every array fits."""
    once = random_model(changed(encoder_settings, encoder={"passes": 1, "final_norm": True}))
    with pytest.raises(ValueError, match=r"make the model of read_folder\(.*\)\.set") as caught:
        stored.initialize_from(once, encoder_folder)
    assert (
        "(encoder.final_norm: False in the folder, True in the model; "
        "encoder.passes: 2 in the folder, 1 in the model)"
    ) in str(caught.value)
    stored.initialize_from(once, encoder_folder, parts=["encoder.layers"])


def test_settings_that_do_not_change_the_numbers_may_differ(
    encoder_folder, encoder_settings, random_model, caplog
):
    settings = dataclasses.replace(encoder_settings, dtype="bfloat16", impl="reference")
    other = changed(
        settings,
        encoder={"remat": "layers", "unroll": 2, "init_std": 1.0},
        trajvit={"max_trajectories": 5, "position_depth": 1},  # 0 stood for the other's 1
        text={"length": 8},
    )
    model = stored.initialize_from(random_model(other), encoder_folder)
    filled = read_state_dict(encoder_folder / stored.WEIGHTS)
    for name, array in paths(model).items():
        if name in filled:
            np.testing.assert_array_equal(array, filled[name], err_msg=name)
    assert not caplog.records


@pytest.mark.parametrize(
    ("part", "compared"),
    [
        ("encoder", ["encoder.heads", "encoder.passes"]),
        ("encoder.layers", ["encoder.heads"]),
        ("encoder.layers.mlp_in", ["encoder.heads"]),
        ("encoder.cls", ["encoder.passes"]),
        ("tokenizer", ["encoder.heads"]),
        ("tokenizer.appearance.backbone", []),
    ],
)
def test_a_part_is_compared_by_what_its_own_numbers_depend_on(
    encoder_folder, encoder_settings, part, compared
):
    """How often layers are run is of the encoder, not of its layers."""
    model = changed(encoder_settings, encoder={"passes": 1, "heads": 4})
    taken = [n for n in stored.read_folder(encoder_folder).arrays if is_below(n, part)]
    found = disagreements(encoder_settings, model, [part], taken)
    assert [line.partition(":")[0] for line in found] == compared


def test_arrays_that_a_folder_lacks_are_named(theirs, sizes, run, random_model, caplog):
    state = theirs(LAYOUTS["bert"])
    del state["bert.embeddings.LayerNorm.bias"]
    _, folder, _, _ = run(state, "--allow-incomplete")
    stored.initialize_from(random_model(sizes(LAYOUTS["bert"])), folder)
    assert "lacks 1 arrays, which stay as they are: text.norm.bias" in caplog.text


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([], "parts is empty: name some of encoder, tokenizer; None takes all"),
        ("encoder", r"parts must be a list of names, not a text: parts=\['encoder'\]"),
    ],
)
def test_parts_that_name_nothing(encoder_folder, encoder_settings, parts, message):
    model = abstract_model(encoder_settings)
    with pytest.raises(ValueError, match=message):
        stored.initialize_from(model, encoder_folder, parts=parts)


def test_an_encoder_loads_if_the_rest_may_be_random(encoder_folder, caplog):
    with pytest.raises(ValueError, match=r"only encoder, tokenizer .*rngs=nnx\.Rngs\(0\)"):
        stored.load_model(encoder_folder)
    model = stored.load_model(encoder_folder, rngs=nnx.Rngs(0))
    filled, arrays = read_state_dict(encoder_folder / stored.WEIGHTS), paths(model)
    for name, array in filled.items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=name)
    assert float(arrays["project_video.kernel"].std()) > 0
    said = "holds encoder, tokenizer alone; random is what belongs to project_text, project_video,"
    assert f"{encoder_folder} {said} temperature, text" in caplog.text


class TestTheReport:
    def test_says_what_was_assumed(self, theirs, run):
        _, folder, out, _ = run(theirs(LAYOUTS["trajvit"]))
        for text in (out, (folder / stored.REPORT).read_text()):
            assumed = text.partition("assumed, as arrays do not tell it:\n")[2]
            assert "  centers (--boxes)\n  encoder run 2x (--passes)\n  mean under" in assumed
            assert "rotary frames (there is no table of them)" in text
        assert "--heads" not in out.replace("note: no effect on this trajvit: --text-heads", "")

    def test_takes_what_was_said(self, theirs, run):
        _, folder, out, _ = run(theirs(LAYOUTS["trajvit"]), "--no-boxes", "--passes=1")
        assert "(--boxes)" not in out and "(--passes)" not in out
        settings = stored.read_folder(folder).settings
        assert (settings.trajvit.position, settings.encoder.passes) == ("centers", 1)

    def test_says_which_options_had_no_effect(self, theirs, run):
        _, _, out, _ = run(theirs(LAYOUTS["trajvit"]))
        assert "note: no effect on this trajvit: --text-heads, --image-size\n" in out

    def test_warns_of_a_part_that_its_program_never_reads(self, theirs, run):
        state = {f"vision_encoder.vit.{n}": a for n, a in theirs(LAYOUTS["vit"]).items()}
        _, _, out, _ = run(theirs(LAYOUTS["trajvit"]) | state, "--kind=vit", "--allow-incomplete")
        assert "note: this is the checkpoint of a released TrajViT, of which --kind=vit" in out
        assert "6 arrays of it are ones that a released TrajViT has and never reads" in out


@pytest.mark.parametrize("options", [(), ("--back",)])
def test_a_place_that_cannot_be_written_is_told_first(tmp_path, capsys, options):
    """Before the source is read, which here is not even there."""
    (tmp_path / "file").write_text("mine")
    to = tmp_path / "file" / "new.npz"
    assert main([f"--from={tmp_path}/none", f"--to={to}", *options]) == 2
    assert f"cannot write {to}: {tmp_path}/file is a file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_suffix_that_cannot_be_written_is_told_first(tmp_path, capsys):
    assert main(["--back", f"--from={tmp_path}/none", f"--to={tmp_path}/back.pt"]) == 2
    assert "can write .safetensors and .npz, not '.pt'" in capsys.readouterr().err


def golden_text(name):
    path = GOLDENS / name
    if not path.is_file():
        pytest.skip(f"no golden file {path}; set TRAJVIT_GOLDENS to its directory")
    return path.read_text()


def text_side_shapes(width):
    """BERT, whose last layers have cross-attention, and what joins it to the video side."""
    settings = ModelSettings(name="vit3d", encoder=EncoderSettings(width=width, depth=1))
    pieces = list(rest_of_clip(settings))
    layer = "text_encoder.encoder.layer.{}.crossattention.self.key.bias"
    cross = {layer.format(number): (768,) for number in (9, 10, 11)}
    return their_shapes(pieces, paths(abstract_model(settings))) | cross


@pytest.mark.parametrize("whole", [False, True], ids=["encoder", "clip"])
@pytest.mark.parametrize(("size", "width", "heads"), [("base", 768, 12), ("large", 1024, 16)])
@pytest.mark.parametrize("kind", ["trajvit", "vit3d"])
def test_full_size_names_and_shapes(kind, size, width, heads, whole):
    """Every array of the released models has its place in ours, or is known to be unused."""
    suffix = f"_d{width}" if kind == "trajvit" else ""
    shapes = json.loads(golden_text(f"official_{kind}_keys_vit-{size}{suffix}.json"))
    if whole:
        shapes = {f"vision_encoder.{name}": shape for name, shape in shapes.items()}
        shapes |= text_side_shapes(width)
    # Arrays without memory: one zero, repeated.
    found = {n: np.broadcast_to(np.float32(0), shape) for n, shape in shapes.items()}
    layout = recognize(found)
    assert layout == Layout(kind, "vision_encoder." if whole else "", whole)
    settings = settings_of(found, layout)
    assert (settings.encoder.width, settings.encoder.heads) == (width, heads)
    assert (settings.image_size, settings.frames) == (224, 16)
    if whole:
        assert (settings.text.depth, settings.text.layers_run) == (12, 9)
    model = abstract_model(settings)
    report = match(found, their_shapes(pieces_of(settings, layout), paths(model)))
    report.raise_if_incomplete()
    assert [n for n in report.left_over if not is_unused(n, layout, settings)] == []

    counts = json.loads(golden_text("official_param_counts.json"))
    trained = {
        ".".join(map(str, path)): leaf.size
        for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param))
    }
    if kind == "trajvit":
        expected = counts[f"vit-{size}_d{width}_bb0"]
        parts = {
            "encoder.layers.": "vit_encoder",
            "tokenizer.appearance.backbone.": "resnet_backbone",
            "tokenizer.appearance.project.": "resnet_linears",
            "tokenizer.appearance.norm.": "resnet_ln",
        }
    else:
        expected = counts[f"vit3d_vit-{size}"]
        parts = {"encoder.layers.": "encoder", "tokenizer.embed.": "patch"}
    for prefix, name in parts.items():
        assert sum(n for path, n in trained.items() if path.startswith(prefix)) == expected[name]
