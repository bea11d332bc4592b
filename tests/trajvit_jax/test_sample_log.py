"""The log of samples: a hash a step, of which a lost run leaves no traces."""

from __future__ import annotations

from trajvit_jax.run.sample_log import SampleLog, ids_hash, read_samples, samples_path


def test_hashes_tell_orders_and_borders_apart():
    lists = [["a", "b"], ["b", "a"], ["ab"], ["a", "b", ""], []]
    assert len({ids_hash(ids) for ids in lists}) == len(lists)
    assert ids_hash(iter(["a", "b"])) == ids_hash(("a", "b"))


def test_steps_after_the_checkpoint_are_dropped_and_written_again(tmp_path):
    with SampleLog(tmp_path) as log:
        for step in (1, 2, 3):
            log.write(step, [f"lost{step}"])
            assert len(read_samples(samples_path(tmp_path))) == step  # a killed run has it, too
    with samples_path(tmp_path).open("a") as file:
        file.write('{"step": 4, "ids_')
    with SampleLog(tmp_path, step=2) as log:
        log.write(3, ["new"])
    found = read_samples(samples_path(tmp_path))
    assert found == {1: ids_hash(["lost1"]), 2: ids_hash(["lost2"]), 3: ids_hash(["new"])}


def test_every_process_has_its_own(tmp_path):
    with SampleLog(tmp_path, process=1) as log:
        log.write(1, ["a"])
    assert read_samples(samples_path(tmp_path)) == {}
    assert list(read_samples(samples_path(tmp_path, process=1))) == [1]
