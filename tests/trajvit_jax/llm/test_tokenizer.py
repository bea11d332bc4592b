"""The chat template to the letter, and conversations that do not hold together."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tokenizers

from trajvit_jax.llm.conversation import (
    Conversation,
    ConversationError,
    Turn,
    files_of,
    from_llava,
    question,
    read_conversations,
    to_llava,
)
from trajvit_jax.llm.tokenizer import MEDIA, SPECIAL, ChatTokenizer, TokenizerError

ENTRY = {
    "id": "a",
    "data_source": "0_30_s_academic_v0_1",
    "video": "academic/a.mp4",
    "conversations": [
        {"from": "human", "value": "<image>\nWhat happens? "},
        {"from": "gpt", "value": "A dog runs."},
        {"from": "human", "value": "Where?"},
        {"from": "gpt", "value": "On grass.\n"},
    ],
}


def spelled(cut, encoded):
    """Ids as text, marks and media too."""
    cut.encode_special_tokens = False
    return "".join(
        "<MEDIA>" if one == MEDIA else cut.decode([one], skip_special_tokens=False)
        for one in encoded.ids.tolist()
    )


def test_template_to_the_letter(chat, cut):
    """As Meta's model card for Llama-3 Instruct spells it."""
    encoded = chat.encode(from_llava(ENTRY))
    user, end = "<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"
    assistant = "<|start_header_id|>assistant<|end_header_id|>\n\n"
    assert spelled(cut, encoded) == (
        f"<|begin_of_text|>{user}<MEDIA>\nWhat happens?{end}{assistant}A dog runs.{end}"
        f"{user}Where?{end}{assistant}On grass.{end}"
    )
    told = [spelled(cut, _only(encoded, run)) for run in _runs(encoded.target)]
    assert told == [f"A dog runs.{end}", f"On grass.{end}"]
    assert encoded.media == 1


def _runs(mask):
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return [slice(a, b) for a, b in edges.reshape(-1, 2)]


def _only(encoded, run):
    return type(encoded)(encoded.ids[run], encoded.target[run])


def test_question_ends_where_the_answer_begins(chat, cut):
    asked = chat.encode(question("Why?", ("a.mp4", "b.png")), answer=True)
    assert spelled(cut, asked).endswith(
        "<MEDIA>\n<MEDIA>\nWhy?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert not asked.target.any()
    within = chat.encode(question("Is <video> like <image>?", ("a.mp4", "b.png")), answer=True)
    assert "Is <MEDIA> like <MEDIA>?" in spelled(cut, within)


def test_system_speaks_first(chat, cut):
    turns = (Turn("system", "Be brief."), Turn("user", "Hi"), Turn("assistant", "Hi."))
    text = spelled(cut, chat.encode(Conversation("a", turns)))
    assert text.startswith(
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    )


def test_texts_are_neither_cut_nor_filled(chat, cut, tmp_path):
    """Whatever lengths a file was saved with."""
    wanted = chat.text_ids("what does the dog do on the grass")
    cut.enable_truncation(3)
    cut.enable_padding(length=40)
    cut.save(str(tmp_path / "tokenizer.json"))
    found = ChatTokenizer.load(tmp_path, cut.get_vocab_size())
    assert found.text_ids("what does the dog do on the grass") == wanted
    assert len(found.text_ids("dog")) < 40


def test_marks_in_text_are_text(chat):
    """Nobody ends a turn by writing its mark."""
    encoded = chat.encode(question("Say <|eot_id|> now"), answer=True)
    marks = [one for one in encoded.ids.tolist() if one in chat.stop]
    assert len(marks) == 1
    text = "a <|begin_of_text|> b"
    assert chat.decode(chat.text_ids(text)) == text


def test_files_both_ways(tmp_path):
    other = {"id": "b", "conversations": [{"from": "human", "value": "Hi"}], "image": ["x", "y"]}
    other["conversations"][0]["value"] = "<image> or <image>?"
    (tmp_path / "a.json").write_text(json.dumps([ENTRY, other]))
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(ENTRY)}\n\n{json.dumps(other)}\n")
    found = read_conversations(tmp_path / "a.json")
    assert found == read_conversations(tmp_path / "a.jsonl")
    assert found == [from_llava(json.loads(json.dumps(to_llava(one)))) for one in found]
    assert found[0].videos == ("academic/a.mp4",)
    assert found[1].videos == ("x", "y")


def test_one_video_without_placeholder_comes_first():
    entry = ENTRY | {"conversations": [{"from": "human", "value": "What?"}]}
    assert from_llava(entry).turns[0].text == "<video>\nWhat?"


class TestWhatDoesNotHoldTogether:
    @pytest.mark.parametrize(
        ("turns", "videos", "told"),
        [
            (["user:<video> a"], [], "1 placeholders .* for 0 videos"),
            (["user:<video> <image>"], ["a"], "2 placeholders .* for 1 videos"),
            (["user:a"], ["a", "b"], "0 placeholders .* for 2 videos"),
            (["assistant:a"], [], "turn 1 is the assistant's"),
            (["user:a", "user:b"], [], "turn 2 is the user's"),
            (["user:a", "assistant: "], [], "answer 1 is empty"),
            (["user:<video>", "assistant:<video>"], ["a"], "no turn of the user"),
            (["user:a", "system:b"], [], "once, and first"),
            (["system:b"], [], "no turn of the user"),
        ],
    )
    def test_conversations(self, turns, videos, told):
        turns = tuple(Turn(*turn.split(":", 1)) for turn in turns)
        with pytest.raises(ConversationError, match=f"conversation 'x'.*{told}"):
            Conversation("x", turns, tuple(videos))

    @pytest.mark.parametrize(
        ("entry", "told"),
        [
            ({"id": "a"}, "entry 1 has no list"),
            ({"id": "a", "conversations": [{"from": "bot", "value": ""}]}, "a turn needs `from`"),
            ({"id": "a", "video": [1], "conversations": []}, "a path or several"),
        ],
    )
    def test_entries(self, tmp_path, entry, told):
        (tmp_path / "a.json").write_text(json.dumps([entry]))
        with pytest.raises(ConversationError, match=rf"a\.json: 1 of 1 .*{told}"):
            read_conversations(tmp_path / "a.json")

    def test_files(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="of conversations"):
            read_conversations(tmp_path / "none.json")
        for text in ("{", '{"a": 1}'):
            (tmp_path / "a.json").write_text(text)
            with pytest.raises(ConversationError, match="no JSON list"):
                read_conversations(tmp_path / "a.json")
        (tmp_path / "a.json").write_text("[]")
        with pytest.raises(ConversationError, match="holds no conversation"):
            read_conversations(tmp_path / "a.json")


def test_a_few_faulty_ones_are_left_out_and_named(tmp_path, caplog):
    good = {"conversations": [{"from": "human", "value": "?"}]}
    entries = [good] * 9 + [{"id": "bad", "conversations": []}]
    (tmp_path / "a.json").write_text(json.dumps(entries))
    with caplog.at_level("WARNING"):
        assert len(read_conversations(tmp_path / "a.json", max_bad=0.1)) == 9
    assert "1 of 10 conversations cannot be used: conversation 'bad'" in caplog.text
    with pytest.raises(ConversationError, match=r"more than max_bad = 0\.05 of them"):
        read_conversations(tmp_path / "a.json", max_bad=0.05)


def test_patterns_name_files(tmp_path):
    for name in ("b/2.json", "a/1.json", "a/x.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("[]")
    every, one = f"{tmp_path}/*/*.json", f"{tmp_path}/a/1.json"
    assert files_of([every, one]) == [one, f"{tmp_path}/b/2.json"]
    assert files_of(["gone.json"]) == ["gone.json"]
    with pytest.raises(FileNotFoundError, match=r"no file is named like .*\*\.csv"):
        files_of([f"{tmp_path}/*/*.csv"])


class TestWrongTokenizer:
    def test_without_marks(self, tmp_path):
        plain = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, "a"))
        plain.save(str(tmp_path / "tokenizer.json"))
        with pytest.raises(TokenizerError, match=r"no token <\|begin_of_text\|>.*Llama-3"):
            ChatTokenizer.load(tmp_path, 128_256)

    def test_of_a_larger_model(self, cut, tmp_path):
        cut.save(str(tmp_path / "tokenizer.json"))
        assert ChatTokenizer.load(tmp_path, cut.get_vocab_size()).begin == cut.token_to_id(
            SPECIAL[0]
        )
        with pytest.raises(TokenizerError, match="only 96 rows"):
            ChatTokenizer.load(tmp_path, 96)

    def test_of_a_smaller_model(self, cut, tmp_path):
        """Llama-3's marks and few ids: the model's own ids of the marks tell them apart."""
        cut.save(str(tmp_path / "tokenizer.json"))
        begin, end = cut.token_to_id("<|begin_of_text|>"), cut.token_to_id("<|eot_id|>")
        model = tmp_path / "model"
        model.mkdir()
        for marks in ({}, {"bos_token_id": None}, {"bos_token_id": begin, "eos_token_id": end}):
            (model / "config.json").write_text(json.dumps(marks))
            assert ChatTokenizer.load(tmp_path, 128_256, model=model).begin == begin
        for marks in (
            {"bos_token_id": 128_000, "eos_token_id": end},
            {"bos_token_id": begin, "eos_token_id": [end, 128_009]},
        ):
            (model / "config.json").write_text(json.dumps(marks))
            with pytest.raises(TokenizerError, match=r"config\.json has .os_token_id .*128"):
                ChatTokenizer.load(tmp_path, 128_256, model=model)
        (model / "config.json").write_text("[]")
        with pytest.raises(TokenizerError, match=r"config\.json holds no JSON object"):
            ChatTokenizer.load(tmp_path, 128_256, model=model)
        (model / "config.json").write_text(json.dumps(marks))
        shutil.copyfile(model / "config.json", tmp_path / "config.json")
        with pytest.raises(TokenizerError, match="of another model"):
            ChatTokenizer.load(tmp_path, 128_256)

    def test_none_or_damaged(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"`tokenizer\.model` is not read"):
            ChatTokenizer.load(tmp_path, 96)
        (tmp_path / "tokenizer.json").write_text("{")
        with pytest.raises(TokenizerError, match="is no tokenizer"):
            ChatTokenizer.load(tmp_path, 96)
