"""A VideoLLM in a folder answers about files: moved, asked in batches, in a terminal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from tests.trajvit_jax.llm.conftest import TOKENIZATION
from tokenization import interrupts
from tokenization.video import VideoError
from trajvit_jax.llm import chat as command
from trajvit_jax.llm import saved as folders
from trajvit_jax.llm import videollm
from trajvit_jax.llm.answering import AnswerSettings, Question
from trajvit_jax.llm.conversation import ConversationError, Turn
from trajvit_jax.llm.manifest import main as manifest
from trajvit_jax.llm.model import VideoLLM
from trajvit_jax.llm.sequences import ContextOverflow
from trajvit_jax.llm.settings import LlamaSettings

SHORT = AnswerSettings(most_tokens=6)


@pytest.fixture(scope="module")
def clips(world_clips):
    return world_clips


@pytest.fixture(scope="module")
def folder(videollm_folder):
    return videollm_folder("trajvit")


@pytest.fixture(scope="module")
def model(folder):
    return videollm.load(folder, batch=2)


def test_a_folder_comes_back_as_it_was(folder, tmp_path, randomized, tiny):
    moved = shutil.copytree(folder, tmp_path / "moved")
    one, other = folders.load(folder), folders.load(moved)
    assert one.tokenization == TOKENIZATION
    expected = randomized(lambda: VideoLLM(one.model.settings, rngs=nnx.Rngs(0)))
    for a, b, c in zip(
        *(jax.tree.leaves(nnx.state(m)) for m in (one.model, other.model, expected)), strict=True
    ):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def test_what_its_note_does_not_tell_is_as_it_was_then(model):
    """Videos are cut as those were that it learned from."""
    assert not model._reader._tokenization.pipeline.discover


def test_questions_together_are_answered_as_alone(model, clips):
    questions = [
        Question("What is it?", (clips[0],)),
        Question("Is it what it is?", (clips[1],)),
        Question("What?", (clips[2], clips[0])),
        Question("What is what?"),
    ]
    together = model.answer_all(questions, SHORT)
    assert together == [model.answer_all([one], SHORT)[0] for one in questions]
    assert together[0] == model.answer(clips[0], "What is it?", SHORT)
    assert len(set(together)) > 1


@pytest.mark.slow
def test_answers_do_not_depend_on_the_devices(folder, model, clips, start_script, printed):
    script = Path(__file__).parent / "answers_on_devices.py"
    found = printed(start_script(script, folder, clips[0], 1, 2, 4, devices=4))
    question = Question("What is it?", (clips[0],))
    assert found["answers"] == [model.answer_all([question], SHORT)] * 3
    # Norms and what is small are everywhere.
    whole, half, quarter = found["bytes"]
    assert half < 0.75 * whole and quarter < 0.6 * whole


def test_devices_that_are_not_there(folder):
    with pytest.raises(ValueError, match="devices=99 must be 1 to"):
        videollm.load(folder, devices=99)
    # Each of them would hold all of what it cannot divide.
    mesh = jax.sharding.AbstractMesh((1, 1, 3), ("data", "fsdp", "tensor"))
    with pytest.raises(ValueError, match="devices=3 do not divide the model's 8 heads"):
        folders._check_shares(LlamaSettings(heads=8), mesh)


def test_frames_and_spans_are_what_is_asked_for(model, clips):
    whole = model.answer(clips[0], "What is it?", SHORT)
    more = AnswerSettings(most_tokens=6, frames=2)
    assert model._look(clips[0], 2)[0].valid.shape == model._look(clips[0], 0)[0].valid.shape
    model.answer(clips[0], "What is it?", more)
    # The span of the whole clip is the clip.
    same = Question("What is it?", (clips[0],), start=0.0, stop=100.0)
    assert model.answer_all([same], SHORT) == [whole]


def test_a_stop_text_ends_an_answer(model, clips):
    whole = model.answer(clips[0], "What is it?", SHORT)
    stop = whole[len(whole) // 2]
    cut = AnswerSettings(most_tokens=6, stop=(stop,))
    assert model.answer(clips[0], "What is it?", cut) == whole.partition(stop)[0].strip()
    assert videollm.cut_at(" a\nb ", ("\n",)) == "a"


def test_what_cannot_be_answered(model, clips, tmp_path):
    (tmp_path / "no.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"no\.mp4"):
        model.answer(tmp_path / "no.mp4", "What?", SHORT)
    with pytest.raises(ContextOverflow, match=r"question 0 with an answer .* context holds 1024"):
        model.answer(clips[0], "what is it " * 600, SHORT)
    with pytest.raises(ConversationError, match=r"1 placeholders .* for 2 videos"):
        list(model.reply([Turn("user", "<video>?")], clips[:2], SHORT))


def test_what_the_model_has_no_place_for_is_told(folder, clips, tmp_path, capsys):
    """A clip of more trajectories than the settings have places for."""
    moved = shutil.copytree(folder, tmp_path / "moved")
    own = json.loads((moved / "settings.json").read_text())
    own["video"]["trajvit"]["max_trajectories"] = 1
    (moved / "settings.json").write_text(json.dumps(own))
    whole, few = videollm.load(folder), videollm.load(moved)
    asked = Question("What?", (clips[0], clips[1]))
    whole.answer_all([asked], SHORT)
    few.answer_all([asked], SHORT)
    assert whole.dropped(asked, SHORT) == 0
    counts = [whole.tokens_of(path) - few.tokens_of(path) for path in clips[:2]]
    assert few.dropped(asked, SHORT) == sum(counts) > 0
    line = [f"--video={clips[0]}", "--question=What?", "--most=2"]
    assert command.main([f"--model={moved}", *line]) == 0
    assert f"2 tokens; its {counts[0]} smallest trajectories" in capsys.readouterr().err


def test_what_cannot_fit_is_told_before_a_video_is_read(videollm_folder, clips, monkeypatch):
    model = videollm.load(videollm_folder("vit3d"), batch=1)
    monkeypatch.setattr(model._reader, "read", lambda *args, **options: pytest.fail("was read"))
    # 4 patches of each two frames, and CLS.
    many = AnswerSettings(most_tokens=6, frames=512)
    with pytest.raises(ContextOverflow, match=r"takes \d+ tokens .* 1025 of videos"):
        model.answer(clips[0], "What?", many)
    with pytest.raises(ContextOverflow, match=r"1025 of videos"):
        list(model.reply([Turn("user", "<video>?")], clips[:1], many))


def test_a_chat_that_outgrows_its_context_forgets_the_oldest(model, clips, monkeypatch, capsys):
    lines = iter([f"{i} what is it " * 60 for i in range(3)] + [""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    command.talk(model, [str(clips[0])], SHORT, None)
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 3 and "error" not in told.err
    assert "no longer reads the 1 oldest questions" in told.err
    with pytest.raises(ContextOverflow):
        command.talk(model, [str(clips[0])], SHORT, "what is it " * 600)
    turns = [Turn("user", "<video>\na"), Turn("assistant", "b"), Turn("user", "c")]
    assert command.without_oldest(turns) == [Turn("user", "<video>\nc")]


def test_a_chat_goes_on_after_an_answer_that_names_a_placeholder(model, clips, monkeypatch, capsys):
    reply, answers = model.reply, iter(["a <video> of <image>", "<video>", None])

    def said(*args):
        told = list(reply(*args))  # which refuses what does not hold together
        return iter([next(answers) or told[-1]])

    lines = iter(["what ?", "and ?", "and then ?", ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    monkeypatch.setattr(model, "reply", said)
    command.talk(model, [str(clips[0])], SHORT, None)
    told = capsys.readouterr()
    assert told.out.splitlines()[:2] == ["a <video> of <image>", "<video>"]
    assert len(told.out.splitlines()) == 3 and not told.err


def test_commands_leave_when_interrupted(folder, monkeypatch, capsys):
    def stop(*args, **options):
        raise KeyboardInterrupt

    def leave(message, code=130):
        raise SystemExit(code)

    monkeypatch.setattr(interrupts, "leave", leave)
    monkeypatch.setattr(command, "talk", stop)
    with pytest.raises(SystemExit, match="130"):
        command.main([f"--model={folder}", "--question=What?"])
    monkeypatch.setattr("trajvit_jax.llm.manifest.write_manifest", stop)
    with pytest.raises(SystemExit, match="130"):
        manifest(["a.json", "--media=.", "--output=x.jsonl"])


def test_terminal(folder, clips, capsys, monkeypatch):
    """One question, and lines that are typed; the second turn reads the first."""
    line = [f"--model={folder}", f"--video={clips[0]}", "--most=6"]
    assert command.main([*line, "--question=What is it?"]) == 0
    one = capsys.readouterr()
    assert "tokens" in one.err and one.out.strip()
    lines = iter(["What is it?", "What?", ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    assert command.main(line) == 0
    typed = capsys.readouterr().out
    assert typed.splitlines()[0] == one.out.splitlines()[0]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["--model=nowhere"], "nowhere holds no VideoLLM"),
        (["--temperature=-1"], "temperature must be at least 0"),
        (["--video=nowhere.mp4"], "nowhere.mp4"),
    ],
)
def test_terminal_tells_in_a_line(folder, capsys, change, told):
    line = [f"--model={folder}", "--question=What?", "--most=2"]
    assert command.main(line + change) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert error[-1].startswith("error: ") and told in error[-1]


def test_the_terminal_finds_its_model_by_an_environment_variable(monkeypatch, capsys):
    monkeypatch.delenv("TRAJVIT_MODEL", raising=False)
    for line in (["--video=x.mp4"], ["--video=x.mp4", "--model="]):
        assert command.main(line) == 2
        error = capsys.readouterr().err
        for told in ("--model", "TRAJVIT_MODEL", "workdir of python -m trajvit_jax.llm.teach"):
            assert told in error
    loaded = []
    monkeypatch.setattr(videollm, "load", lambda folder, **options: loaded.append(folder))
    monkeypatch.setattr(command, "talk", lambda *options: None)
    monkeypatch.setenv("TRAJVIT_MODEL", "from-there")
    assert command.main([]) == 0 and command.main(["--model=here"]) == 0
    assert loaded == ["from-there", "here"]


def test_a_device_without_memory_is_told_in_a_line(monkeypatch, capsys):
    def load(folder, **options):
        raise jax.errors.JaxRuntimeError(told)

    monkeypatch.setattr(videollm, "load", load)
    told = "RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nBufferAssignment: .."
    assert command.main(["--model=m", "--video=a.mp4", "--frames=64"]) == 1
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1 and error[0].endswith("give fewer --frames, or fewer videos")
    assert "of 64 frames (RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.)" in error[0]
    told = "INTERNAL: something else"
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        command.main(["--model=m"])


def test_damaged_folders(folder, tmp_path):
    moved = shutil.copytree(folder, tmp_path / "moved")
    (moved / "settings.json").write_text("{")
    with pytest.raises(ValueError, match=r"settings\.json cannot be read"):
        folders.load(moved)
    shutil.copyfile(folder / "settings.json", moved / "settings.json")
    (moved / "llm" / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json does not exist"):
        folders.load(moved)


def test_attention_that_is_not_for_a_model_is_told_when_it_is_loaded(folder):
    """It computes in float32, as its eyes do."""
    with pytest.raises(ValueError, match=r"^llm\.attention='cudnn' is for dtype='bfloat16'"):
        videollm.load(folder, attention="cudnn")


def test_a_save_that_is_cut_off_leaves_nothing_that_loads(folder, tmp_path, monkeypatch):
    moved = shutil.copytree(folder, tmp_path / "moved")

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(folders, "write_state_dict", stop)
    with pytest.raises(KeyboardInterrupt):
        folders.save(folders.load(folder), moved, tokenizer=str(folder / "llm"))
    with pytest.raises(FileNotFoundError, match="holds no VideoLLM"):
        folders.load(moved)


def test_a_save_over_the_folder_that_it_came_from(folder, tmp_path):
    """The tokenizer lies there, too."""
    moved = shutil.copytree(folder, tmp_path / "moved")
    folders.save(folders.load(moved), moved, tokenizer=str(moved / "llm"))
    one, other = folders.load(folder), folders.load(moved)
    for a, b in zip(*(jax.tree.leaves(nnx.state(m.model)) for m in (one, other)), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(FileNotFoundError):
        folders.save(other, moved, tokenizer=str(tmp_path))
    folders.load(moved)  # nothing was removed


def test_manifest_of_a_file_of_conversations(clips, tmp_path, capsys):
    media = clips[0].parent
    entries = [
        {"id": str(i), "video": name, "conversations": [{"from": "human", "value": "<image>?"}]}
        for i, name in enumerate([clips[0].name, clips[0].name, clips[1].name, "gone/x.mp4"])
    ]
    (tmp_path / "a.json").write_text(json.dumps(entries))
    output = tmp_path / "a.jsonl"
    line = [str(tmp_path / "a.json"), f"--media={media}", f"--output={output}"]
    assert manifest(line) == 0
    told = capsys.readouterr().out
    assert "2 videos" in told and "1 videos are not in" in told and "gone/x.mp4" in told
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["id"] for line in lines] == [clips[0].stem, clips[1].stem]
    entries[0]["video"] = f"{clips[0].stem}.webm"
    (tmp_path / "a.json").write_text(json.dumps(entries))
    assert manifest(line) == 2
    assert "one name without their suffix" in capsys.readouterr().err
