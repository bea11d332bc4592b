"""How records were cut is said beside every number of a model that reads trajectories."""

from __future__ import annotations

import json
import shutil

import pytest

from trajvit_jax.evals import command, retrieval
from trajvit_jax.evals.cut import cut_of, cut_otherwise, papers_cut
from trajvit_jax.evals.results import read_result


def made_by(segmenter="classical", tracker="flow", **more):
    return {"pipeline": {"segmenter": segmenter, "tracker": tracker, **more}, "record_size": 128}


def test_a_cut_is_called_by_its_programs():
    assert cut_of(made_by()) == "classical + flow"
    assert cut_of({}) == cut_of({"pipeline": {"tracker": "flow"}}) == ""
    assert papers_cut("none") == papers_cut("queries4") == "directsam + sam2"
    assert papers_cut("segmentation_only") == "directsam + none"


def test_what_differs_is_named_programs_first():
    read = made_by(flow={"edge": 6.0, "side": 256, "grow": 1, "new": 2}, frames=64, link_iou=0.8)
    same = made_by(flow={"edge": 6.0, "side": 256, "grow": 1, "new": 2}, frames=16, link_iou=0.8)
    assert cut_otherwise(read, same) == ""  # other frames are not another cut
    assert cut_otherwise(read, {}) == ""  # nothing is known
    other = made_by(
        tracker="sam2", flow={"edge": 5.0}, learned={"sam2": {"size": "tiny"}}, link_iou=0.5
    )
    assert cut_otherwise(read, other) == ("tracker: 'sam2', now 'flow'; link_iou: 0.5, now 0.8")
    more = made_by(flow={"edge": 5.0, "side": 128, "grow": 2, "new": 3}, link_iou=0.5)
    assert cut_otherwise(read, more) == (
        "flow.edge: 5.0, now 6.0; flow.grow: 2, now 1; flow.new: 3, now 2 and 2 more"
    )


def test_what_no_program_reads_is_no_difference():
    ours = made_by("directsam", "sam2", flow={"edge": 6.0}, tubes={"most": 50}, walk={"radius": 1})
    theirs = made_by("directsam", "sam2", flow={"edge": 5.0}, tubes={"most": 9}, walk={"radius": 2})
    assert cut_otherwise(ours, theirs) == ""
    running = {"learned": {"running": {"device": "cpu"}, "sam2": {"size": "small"}}}
    other = {"learned": {"running": {"device": "cuda"}, "sam2": {"size": "tiny"}}}
    assert (
        cut_otherwise(
            made_by("directsam", "sam2", **running), made_by("directsam", "sam2", **other)
        )
        == "learned.sam2.size: 'tiny', now 'small'"
    )
    # Pieces are joined where trajectories are followed from several frames.
    pieces = [made_by(tubes={"most": most}) for most in (50, 9)]
    assert cut_otherwise(*pieces) == ""
    for one in pieces:
        one["pipeline"]["discover"] = True
    assert cut_otherwise(*pieces) == "tubes.most: 9, now 50"


def test_the_size_that_is_segmented_is_a_difference():
    assert cut_otherwise(made_by(max_side=128), made_by(max_side=512)) == ("max_side: 512, now 128")


@pytest.mark.parametrize("model", ["trajvit", "vit3d"])
def test_a_result_says_how_its_records_and_those_of_training_were_cut(
    model, runs, toy_records, tmp_path, capsys
):
    run, records, path = tmp_path / "run", tmp_path / "records", tmp_path / "result.json"
    shutil.copytree(runs(model), run)
    shutil.copytree(toy_records, records)
    (run / "tokenization.json").write_text(json.dumps(made_by("directsam", "sam2")), "utf-8")
    (records / "settings.json").write_text(json.dumps(made_by()), "utf-8")
    given = [f"--workdir={run}", f"--records={records}", f"--json={path}", "--draws=0"]
    assert command.main(retrieval.PROTOCOL, given) == 0
    found, said = read_result(path), capsys.readouterr().out
    if model == "vit3d":  # it reads no trajectories
        assert (found.cut, found.train_cut) == ("", "") and "otherwise" not in said
        return
    assert (found.cut, found.train_cut) == ("classical + flow", "directsam + sam2")
    assert "cut otherwise than in training: segmenter: 'directsam', now 'classical'" in said
