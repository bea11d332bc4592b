"""The command that embeds videos."""

from __future__ import annotations

import json

import numpy as np
import pytest

from trajvit_jax.api import Index
from trajvit_jax.embed import main


def test_embeddings_of_a_folder(folder, model, clips, tmp_path, capsys):
    output = tmp_path / "out.npz"
    arguments = [f"--model={folder}", f"--videos={clips[0].parent}", f"--output={output}"]
    assert main([*arguments, "--search=a red star", "--best=2"]) == 0
    with np.load(output, allow_pickle=False) as file:
        found = file["embeddings"]
    np.testing.assert_allclose(found, model.embed_video(clips), atol=1e-6)
    told = capsys.readouterr().out
    assert f"{output}: 5 videos, 16 numbers each" in told
    assert told.count(".mp4") == 2 and "a red star" in told
    index = Index.load(output)
    assert model.search("a red star", index)[0].path in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.npz"]


def test_what_cannot_be_read_is_in_quarantine(folder, clips, tmp_path, capsys):
    lines = [{"id": "good", "path": str(clips[0])}, {"id": "bad", "path": "none.mp4"}]
    manifest = tmp_path / "videos.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = [f"--model={folder}", f"--videos={manifest}", f"--output={tmp_path / 'out.npz'}"]
    assert main(arguments) == 1
    assert "error: that is 50.0%, more than --max-bad=0.05" in capsys.readouterr().err
    assert main([*arguments, "--max-bad=0.5"]) == 0
    [line] = (tmp_path / "out.npz.quarantine.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert (told["id"], told["reason"]) == ("bad", "does not exist")
    assert Index.load(tmp_path / "out.npz").ids == ("good",)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"output": "out.npy"}, "written as .npz"),
        ({"model": "dmeo"}, "is no folder"),
        ({"videos": "nothing"}, "nothing does not exist"),
        ({"search": " "}, "must say something"),
    ],
)
def test_wrong_arguments_end_in_a_line(folder, clips, tmp_path, capsys, changed, reason):
    given = {"model": folder, "videos": clips[0], "output": tmp_path / "out.npz"} | changed
    assert main([f"--{name}={value}" for name, value in given.items()]) == 2
    told = capsys.readouterr().err
    assert reason in told and told.count("\n") == 1
    assert not list(tmp_path.iterdir())
