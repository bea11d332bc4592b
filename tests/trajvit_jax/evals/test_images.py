"""Images are videos of one frame: of a model of images, and of one that was trained on videos."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.trajvit_jax.plain_retrieval import retrieval_metrics
from tokenization.shards import write_records
from trajvit_jax.data.samples import video_sample
from trajvit_jax.data.source import open_records
from trajvit_jax.evals import command
from trajvit_jax.evals.embedding import Embedder
from trajvit_jax.evals.loaded import load, with_frames
from trajvit_jax.evals.prompts import TEMPLATES
from trajvit_jax.evals.results import read_result
from trajvit_jax.models.settings import ViT3DSettings

CONFIGS = Path(__file__).parent.parent.parent.parent / "configs" / "eval"
SYNSETS = {
    "n02119022": "red fox, Vulpes",
    "n01693334": "green lizard",
    "n01580077": "blue jay",
    "n02066245": "grey whale",
}
MODELS = ("vit", "trajvit")


@pytest.fixture(scope="module")
def images(tmp_path_factory, toy_record):
    """Twelve images; two captions each, one of which several share; and ImageNet's labels."""
    folder = tmp_path_factory.mktemp("images")
    made = []
    for i in range(12):
        record = toy_record(i, frames=1)
        synset = list(SYNSETS)[i % 4]
        captions = (*record.captions, f"something {record.captions[0].split()[2]}")
        own = {"captions": captions, "label": SYNSETS[synset], "extra": {"synset": synset}}
        made.append(dataclasses.replace(record, **own))
    write_records(folder, made, split="test")
    return folder


@pytest.fixture(scope="module")
def workdirs(runs, write_run, tmp_path_factory):
    """A run of each model: TrajViT read videos of four frames."""
    of_images = tmp_path_factory.mktemp("run_vit")
    write_run(of_images, "vit", frames=1, vit3d=ViT3DSettings(patch=16, tubelet=1))
    return {"vit": of_images, "trajvit": runs("trajvit")}


@pytest.fixture(scope="module")
def alone(workdirs, images):
    """What embeds, its vocabulary, and the images' embeddings, each in a batch of its own."""

    def embed(name):
        loaded = load(workdirs[name])
        model = with_frames(loaded.model, 1)
        step = nnx.jit(lambda model, *video: model.embed_video(*video))
        found = []
        for record in open_records(images, "test"):
            sample = video_sample(record, model.settings)
            assert sample.video.shape[0] == 1
            one = step(model, jnp.asarray(sample.video)[None], jnp.asarray(sample.labels)[None])
            found.append(np.asarray(one)[0])
        found = np.stack(found)
        assert np.ptp(found, 0).max() > 0.01  # images differ by more than what is let pass
        return Embedder(model, batch=8), loaded.words(), found

    return {name: embed(name) for name in MODELS}


@pytest.fixture
def evaluated(workdirs, images, tmp_path, monkeypatch):
    """The result of a protocol as a config of the paper asks for it, and what it is measured on."""

    def run(name, model, config, *options):
        module = importlib.import_module(f"trajvit_jax.evals.{name}")
        seen, measure = [], module.measure
        monkeypatch.setattr(
            module, "measure", lambda own, **how: seen.append(own) or measure(own, **how)
        )
        path = tmp_path / "result.json"
        given = [f"--workdir={workdirs[model]}", f"--records={images}", f"--json={path}"]
        rest = (f"--config={CONFIGS / config}", "--batch=8", "--draws=0", *options)
        assert command.main(module.PROTOCOL, [*given, *rest]) == 0
        result = read_result(path)
        assert (result.count, result.of, result.missing) == (12, 12, [])
        assert (result.frames, result.stored, result.model) == (1, 1, model)
        [measured] = seen
        return result, measured

    return run


@pytest.mark.parametrize("name", MODELS)
def test_captions_find_images(evaluated, alone, images, name):
    result, gallery = evaluated("retrieval", name, "coco.py")
    embedder, words, expected = alone[name]
    np.testing.assert_allclose(gallery.videos, expected, atol=1e-5)
    captions = [record.captions for record in open_records(images, "test")]
    texts = sorted({caption for own in captions for caption in own})
    positives = np.array([[text in own for text in texts] for own in captions])
    assert positives.shape == (12, 16) and result.dataset == "coco"
    similarity = expected @ embedder.texts(texts, words).T
    for metric, value in retrieval_metrics(similarity, positives).items():
        assert result.metrics[metric].value == pytest.approx(value), metric


@pytest.mark.parametrize("name", MODELS)
def test_images_are_classified(evaluated, alone, tmp_path, name):
    listed = tmp_path / "LOC_synset_mapping.txt"
    listed.write_text("".join(f"{synset} {own}\n" for synset, own in SYNSETS.items()))
    result, found = evaluated("classification", name, "imagenet.py", f"--classes={listed}")
    embedder, words, expected = alone[name]
    of_classes = []
    for own in SYNSETS.values():
        sentences = [one.replace("{}", own.split(",")[0]) for one in TEMPLATES["kinetics"]]
        of_classes.append(embedder.texts(sentences, words).mean(0))
    scores = expected @ np.stack(of_classes).T
    np.testing.assert_allclose(found.scores, scores, atol=1e-5)
    truth = np.arange(12) % 4
    assert found.truth.tolist() == truth.tolist() and result.dataset == "imagenet"
    best = scores.argmax(1) == truth
    assert result.metrics["top1"].value == pytest.approx(100 * best.mean())


def test_frames_that_do_not_fit_images(workdirs, images, runs, toy_records, capsys):
    own = importlib.import_module("trajvit_jax.evals.retrieval").PROTOCOL

    def told(workdir, records, *options):
        given = [f"--workdir={workdir}", f"--records={records}", *options]
        assert command.main(own, given) == 2
        return capsys.readouterr().err

    said = told(workdirs["trajvit"], images)  # it asks for as many as it was trained with
    assert "record 'clip00' has 1 frames, 4 frames are to be read; lower --frames" in said
    said = told(runs("vit3d"), images, "--frames=1")
    assert "vit3d reads multiples of 2 frames, not 1" in said
    said = told(workdirs["vit"], toy_records, "--frames=4")
    assert "vit reads images, one frame, not 4" in said
