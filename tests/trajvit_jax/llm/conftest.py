"""Tiny language models, and the golden ones of transformers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from flax import nnx

from tokenization.world.dataset import write_split
from tokenization.world.scenes import WorldSettings
from trajvit_jax.llm import saved as folders
from trajvit_jax.llm.eyes import EyesSettings
from trajvit_jax.llm.hugging_face import abstract, fill
from trajvit_jax.llm.llama import Llama
from trajvit_jax.llm.model import VideoLLM, VideoLLMSettings
from trajvit_jax.llm.settings import LlamaSettings, RopeScaling
from trajvit_jax.llm.tensors import Tensors, write_tensors
from trajvit_jax.llm.tokenizer import SPECIAL, ChatTokenizer

# As `llama/config` of the golden file says in words.
GOLDEN = LlamaSettings(
    vocabulary=96, width=64, depth=2, heads=8, key_heads=2, mlp=112, dtype="float32"
)
# How the videos were cut that `videollm_folder`'s models read.
TOKENIZATION = {
    "record_size": 64,
    "pipeline": {
        "frames": 4,
        "classical": {"superpixels": 60, "threshold": 5.0},
        "flow": {"superpixels": 60},
    },
}
SCALING = RopeScaling(factor=8.0, low_frequency=1.0, high_frequency=4.0, context=32)


@pytest.fixture(scope="session")
def golden_settings() -> dict[str, LlamaSettings]:
    """Of both golden models."""
    return {"llama": dataclasses.replace(GOLDEN, scaling=SCALING), "llama_noscale": GOLDEN}


@pytest.fixture(scope="session")
def written(
    golden: Callable[[str], dict[str, np.ndarray]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """The golden weights of a model as a folder of safetensors."""

    def write(name: str, **options: Any) -> Path:
        folder = tmp_path_factory.mktemp(name)
        prefix = f"{name}/sd/"
        arrays = {n.removeprefix(prefix): a for n, a in golden("hf_tiny").items() if prefix in n}
        shapes = {name: (array.shape, array.dtype) for name, array in arrays.items()}
        write_tensors(folder, shapes, arrays.__getitem__, **options)
        return folder

    return write


@pytest.fixture(scope="session")
def golden_llama(written, golden_settings) -> Callable[..., Llama]:
    """A golden model, its settings changed."""
    folders: dict[str, Path] = {}

    def make(name: str = "llama", **changes: Any) -> Llama:
        folder = folders.setdefault(name, written(name))
        settings = dataclasses.replace(golden_settings[name], **changes)
        return fill(abstract(settings), Tensors(folder))

    return make


@pytest.fixture
def cut() -> tokenizers.Tokenizer:
    """A byte-level tokenizer with Llama-3's marks, of few ids."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    letters = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=letters, show_progress=False
    )
    made.train_from_iterator(["what does the dog do on the grass", "user assistant"], trainer)
    made.add_special_tokens(list(SPECIAL))
    return made


@pytest.fixture
def chat(cut: tokenizers.Tokenizer) -> ChatTokenizer:
    """The same as a chat's."""
    return ChatTokenizer(cut, cut.get_vocab_size())


@pytest.fixture(scope="session")
def world_clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three tiny clips of the procedural world, of eight frames."""
    root = tmp_path_factory.mktemp("world")
    world = WorldSettings(width=64, height=64, frames=8, cut_probability=0.0, max_objects=1)
    write_split(root, "train", 3, world, progress=False)
    return sorted((root / "train" / "videos").glob("*.mp4"))


@pytest.fixture(scope="session")
def videollm_folder(
    tmp_path_factory: pytest.TempPathFactory, randomized: Callable, tiny: Callable
) -> Callable[[str], Path]:
    """A VideoLLM of random numbers with such eyes, as it is kept."""
    made: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name in made:
            return made[name]
        root = tmp_path_factory.mktemp(f"videollm-{name}")
        cut = tokenizers.Tokenizer(tokenizers.models.BPE())
        cut.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        cut.decoder = tokenizers.decoders.ByteLevel()
        letters = tokenizers.pre_tokenizers.ByteLevel.alphabet()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=270, initial_alphabet=letters, show_progress=False
        )
        cut.train_from_iterator(["what is it"], trainer)
        cut.add_special_tokens(list(SPECIAL))
        (root / "words").mkdir()
        cut.save(str(root / "words" / "tokenizer.json"))
        llm = LlamaSettings(
            vocabulary=288,
            width=32,
            depth=2,
            heads=4,
            key_heads=2,
            mlp=48,
            context=1024,
            dtype="float32",
        )
        settings = VideoLLMSettings(tiny(name), EyesSettings(), llm)
        model = randomized(lambda: VideoLLM(settings, rngs=nnx.Rngs(0)))
        saved = folders.Saved(model, ChatTokenizer(cut, 288), TOKENIZATION)
        folders.save(saved, root / "model", tokenizer=str(root / "words"))
        return made.setdefault(name, root / "model")

    return make
