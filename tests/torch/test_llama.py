"""Llama against transformers itself: all settings, positions beyond the first context, files."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trajvit_jax.llm import hugging_face
from trajvit_jax.llm.llama import Cache, Llama
from trajvit_jax.llm.settings import LlamaSettings, RopeScaling, to_hugging_face

pytestmark = pytest.mark.torch

TINY = LlamaSettings(
    vocabulary=128,
    width=64,
    depth=3,
    heads=8,
    key_heads=2,
    mlp=96,
    context=131_072,
    dtype="float32",
)
KINDS = {
    "3": TINY,
    "3.1": dataclasses.replace(TINY, scaling=RopeScaling()),
    "3.2, tied": dataclasses.replace(TINY, scaling=RopeScaling(factor=32.0), tied=True),
    "wide heads": dataclasses.replace(TINY, head_width=16),
    "a key head a head": dataclasses.replace(TINY, key_heads=8),
}
# Within the first context of 8,192 tokens, across its end, and far beyond.
STARTS = [0, 8180, 20_000, 131_000]


@pytest.fixture(scope="module")
def theirs(torch, transformers):
    def make(settings):
        torch.manual_seed(0)
        config = transformers.LlamaConfig(**to_hugging_face(settings))
        config._attn_implementation = "eager"
        model = transformers.LlamaForCausalLM(config).eval()
        with torch.no_grad():
            for weight in model.parameters():
                # Larger than they start, so that scores differ and norms matter.
                weight.mul_(4) if weight.ndim > 1 else weight.uniform_(0.5, 1.5)
        return model

    return make


@pytest.fixture(scope="module")
def pair(theirs, tmp_path_factory):
    """Both models of the same weights, which ours reads from what transformers wrote."""
    made = {}

    def get(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("llama")
            their = theirs(KINDS[name])
            their.save_pretrained(folder, max_shard_size="60KB")
            made[name] = their, hugging_face.load(folder, dtype="float32")
        return made[name]

    return get


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", KINDS)
def test_logits_at_positions(pair, torch, close, name, start):
    their, our = pair(name)
    assert our.settings == KINDS[name]
    ids = np.random.default_rng(start).integers(0, 128, (2, 24))
    # A few of the first tokens, and then those from `start` on: far apart, as in a long text.
    places = np.concatenate([np.arange(6), start + np.arange(6, 24)])[None].repeat(2, 0)
    with torch.no_grad():
        expected = their(torch.tensor(ids), position_ids=torch.tensor(places)).logits

    @nnx.jit
    def run(model, ids, places):
        x = model.embed(ids)
        whole = model.logits(model(x, jnp.ones_like(ids), places))
        cache, parts = Cache.empty(model.settings, 2, 30), []
        for part in (slice(0, 16), *(slice(i, i + 1) for i in range(16, 24))):
            states, cache = model.extend(
                x[:, part], jnp.ones_like(ids[:, part], bool), places[:, part], cache
            )
            parts.append(model.logits(states))
        return whole, jnp.concatenate(parts, 1)

    whole, cached = run(our, jnp.asarray(ids), jnp.asarray(places))
    close(whole, expected)
    close(cached, expected)


@pytest.mark.parametrize("name", KINDS)
def test_transformers_reads_what_we_write(pair, torch, transformers, tmp_path, name):
    their, our = pair(name)
    hugging_face.save(our, tmp_path, shard_bytes=60_000)
    again = transformers.LlamaForCausalLM.from_pretrained(tmp_path)
    for (one, a), (other, b) in zip(
        their.named_parameters(), again.named_parameters(), strict=True
    ):
        assert one == other and torch.equal(a, b)


def test_loss_and_its_gradient(pair, torch, close):
    """Of the embeddings given, as a connector receives it."""
    their, our = pair("3.1")
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 128, (2, 12))
    given = rng.normal(size=(2, 12, 64)).astype(np.float32) * 0.1
    x = torch.tensor(given, requires_grad=True)
    expected = their(inputs_embeds=x, labels=torch.tensor(ids)).loss
    expected.backward()

    graph, state = nnx.split(our)

    @jax.jit
    def run(state, x):
        def loss(x):
            model = nnx.merge(graph, state, copy=True)
            segments = jnp.ones((2, 12), jnp.int32)
            places = jnp.broadcast_to(jnp.arange(12), (2, 12))
            logits = model.logits(model(x, segments, places))[:, :-1]
            log = logits - jnp.log(jnp.exp(logits).sum(-1, keepdims=True))
            return -jnp.take_along_axis(log, jnp.asarray(ids)[:, 1:, None], -1).mean()

        return jax.value_and_grad(loss)(x)

    loss, gradient = run(state, jnp.asarray(given))
    close(loss, expected)
    close(gradient, x.grad)


def test_config_is_read_as_transformers_writes_it(transformers, tmp_path):
    for settings in KINDS.values():
        transformers.LlamaConfig(**to_hugging_face(settings)).save_pretrained(tmp_path)
        found = hugging_face.read_settings(tmp_path, dtype="float32")
        assert found == settings, json.loads((tmp_path / "config.json").read_text())


def test_chat_template(transformers, tiny_chat):
    """The template of Llama-3's own tokenizer_config.json, as transformers runs it."""
    chat, cut, ask = tiny_chat
    template = (
        "{% set loop_messages = messages %}{% for message in loop_messages %}"
        "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
        "+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"
        "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
        "{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    )
    pytest.importorskip("jinja2")
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=cut, bos_token="<|begin_of_text|>", chat_template=template
    )
    turns = [
        {"role": "system", "content": "Be brief. "},
        {"role": "user", "content": " What does the dog do?"},
        {"role": "assistant", "content": "Runs.\n"},
        {"role": "user", "content": "Where?"},
    ]
    text = fast.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    cut.encode_special_tokens = False
    expected = cut.encode(text, add_special_tokens=False).ids
    cut.encode_special_tokens = True
    assert ask(turns).ids.tolist() == expected


@pytest.fixture
def tiny_chat():
    """A tokenizer, the same as a chat's, and how turns are asked of it."""
    import tokenizers

    from trajvit_jax.llm.conversation import Conversation, Turn
    from trajvit_jax.llm.tokenizer import SPECIAL, ChatTokenizer

    cut = tokenizers.Tokenizer(tokenizers.models.BPE())
    cut.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    cut.decoder = tokenizers.decoders.ByteLevel()
    letters = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=letters, show_progress=False
    )
    cut.train_from_iterator(["what does the dog do on the grass"], trainer)
    cut.add_special_tokens(list(SPECIAL))
    chat = ChatTokenizer(cut, cut.get_vocab_size())

    def ask(turns):
        own = tuple(Turn(turn["role"], turn["content"]) for turn in turns)
        return chat.encode(Conversation("a", own), answer=True)

    return chat, cut, ask


def test_llama_is_a_module_of_its_parameters(transformers):
    """As many numbers as transformers counts."""
    for settings in KINDS.values():
        their = transformers.LlamaForCausalLM(transformers.LlamaConfig(**to_hugging_face(settings)))
        assert settings.parameters == their.num_parameters()
        assert isinstance(hugging_face.abstract(settings), Llama)
