"""Extraction on Ray: the records of the local engine, whoever is killed and whatever goes away."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest

from tokenization import manifest, shards
from tokenization.engines import ray_actors
from tokenization.engines.crew import DIED, LATE, Crew, Patience
from tokenization.engines.local import LocalEngine
from tokenization.engines.protocol import EngineError, WorkerUnfit
from tokenization.engines.ray_actors import RayEngine
from tokenization.extract import ExtractSettings, extract
from tokenization.pipeline import PipelineSettings

ray = pytest.importorskip("ray", reason="Ray is not installed: make test-ray")
pytestmark = pytest.mark.ray

SETTINGS = ExtractSettings(PipelineSettings(frames=4), record_size=32, shard_size=3)


class Work:
    """Dies of item 3 for good, hangs at item 5, dies of item 6 once."""

    def __init__(self, folder: Path) -> None:
        self.mark = folder / "died"

    def __call__(self, item: int) -> int:
        if item == 3 or (item == 6 and not self.mark.exists()):
            self.mark.touch()
            os.kill(os.getpid(), 9)
        if item == 5:
            time.sleep(600)
        return 2 * item


def give_up(item, troubles):
    return (item, troubles)


@pytest.fixture(scope="module")
def engine():
    """One cluster for all tests of this file; engines use what has been started."""
    with RayEngine("local", workers=2):
        yield RayEngine(workers=2)
    with warnings.catch_warnings(action="ignore"):  # Ray waits for none of its own processes
        gc.collect()


def test_deaths_and_time_limits(engine, tmp_path):
    with engine as started:
        make = lambda: Work(tmp_path)  # noqa: E731
        crew = Crew(started, make, give_up=give_up, patience=Patience(2, 3.0))
        found = dict(crew.map(range(8)))
    assert found.pop(3) == (3, (DIED,) * 2)
    assert found.pop(5) == (5, (LATE,) * 2)
    assert found == {item: 2 * item for item in (0, 1, 2, 4, 6, 7)}
    assert (tmp_path / "died").exists() and crew.most == 2


def test_what_making_the_function_raises_reaches_the_caller(engine):
    def make():
        raise KeyError("no weights")

    with engine as started, pytest.raises(KeyError, match="no weights"):
        list(Crew(started, make, give_up=give_up).map([1, 2]))


def test_records_are_those_of_the_local_engine_and_either_goes_on(engine, clips, tmp_path):
    for number in range(7):
        clips.video(f"{number}.mp4", frames=6 + number)
    clips.data("3.mp4", b"")
    lines = [{"id": str(number), "path": f"{number}.mp4"} for number in range(7)]
    path = clips.data("clips.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    entries = manifest.read_manifest(path)
    both = {"local": LocalEngine(2), "ray": engine}
    for name, one in both.items():
        summary = extract(entries, tmp_path / name, SETTINGS, engine=one)
        assert summary.videos == 6 and [bad.id for bad in summary.quarantine] == ["3"]

    def content(name: str) -> list[bytes]:
        return [shards.shard_path(tmp_path / name, "train", i).read_bytes() for i in range(3)]

    assert content("ray") == content("local")
    quarantine = [(tmp_path / name / "quarantine.jsonl").read_bytes() for name in both]
    assert quarantine[0] == quarantine[1]
    for one, other in (("local", "ray"), ("ray", "local")):
        shards.shard_path(tmp_path / one, "train", 1).unlink()
        assert extract(entries, tmp_path / one, SETTINGS, engine=both[other]).skipped == 4
    assert content("ray") == content("local")


def test_an_actor_that_cannot_be_made_where_it_is_is_replaced(engine, tmp_path):
    """As where weights cannot be downloaded."""
    mark = tmp_path / "tried"

    def make():
        if not mark.exists():
            mark.touch()
            raise WorkerUnfit("cannot download weights")
        return lambda item: 2 * item

    with RayEngine(workers=1) as one:
        assert dict(Crew(one, make, give_up=give_up).map([1, 2])) == {0: 2, 1: 4}
    assert mark.exists()


class Waits:
    """Items that are done when the next one has been begun, if that waits behind them."""

    def __init__(self) -> None:
        self.begun = {item: threading.Event() for item in "abcd"}

    def ahead(self, item: str) -> None:
        self.begun[item].set()

    def __call__(self, item: str) -> bool:
        # The last one is given to an actor that has nothing to do: it is not begun beforehand.
        following = {"a": "b", "b": "c"}.get(item)
        return following is None or self.begun[following].wait(30)


def test_what_waits_is_begun_while_another_is_in_work(engine):
    with RayEngine(workers=1) as one:
        found = Crew(one, Waits, give_up=give_up).map("abcd")
        assert dict(found) == dict.fromkeys(range(4), True)


def test_an_item_that_is_announced_too_late_is_not_begun_again():
    """Its frames would be decoded for nobody, and kept."""
    remote, begun = ray_actors._Remote(), []

    class Function:
        ahead = staticmethod(begun.append)

        def __call__(self, item: str) -> str:
            return item

    remote._function = Function()
    assert remote.work(0, "a") == "a"
    remote.ahead(0, "a")
    remote.ahead(1, "b")
    assert begun == ["b"]


def test_groups_that_are_decoded_ahead_give_the_same_records(engine, entries, tmp_path):
    """The pipeline takes several videos at once; an odd one is left and goes alone."""
    for name, one in {"local": LocalEngine(1), "ray": engine}.items():
        extract(entries, tmp_path / name, SETTINGS, engine=one, together=2)
    for index in range(2):
        paths = [shards.shard_path(tmp_path / n, "train", index) for n in ("local", "ray")]
        assert paths[0].read_bytes() == paths[1].read_bytes()


SPOT = """
import time
from ray.cluster_utils import Cluster
from tokenization.engines.crew import Crew, Patience
from tokenization.engines.ray_actors import RayEngine

def work(item):
    time.sleep(0.5)
    return item

def main():
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    spot = cluster.add_node(num_cpus=2)
    with RayEngine(cluster.address) as engine:
        crew = Crew(engine, lambda: work, give_up=lambda *why: why, patience=Patience(tries=1))
        found = {}
        for number, result in crew.map(range(12)):
            found[number] = result
            if len(found) == 2:
                cluster.remove_node(spot, allow_graceful=False)
                cluster.add_node(num_cpus=1)
        print("found", [found[number] for number in range(12)])
    cluster.shutdown()

if __name__ == "__main__":
    main()
"""


def test_a_machine_that_goes_away_blames_no_video(tmp_path):
    """With one try for each: what was worked on there is given to a machine that comes later."""
    script = tmp_path / "spot.py"
    script.write_text(SPOT)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=240)
    assert f"found {list(range(12))}" in done.stdout, done.stdout + done.stderr
    assert "is lost" in done.stderr


def test_a_cluster_that_is_not_there(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)

    def refuse(address, **options):
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(ray, "init", refuse)
    with (
        pytest.raises(EngineError, match=r"no Ray cluster at 'auto' \(nobody answers"),
        RayEngine("auto"),
    ):
        pass


@pytest.mark.parametrize("values", [{"workers": 0}, {"gpus": -1.0}])
def test_impossible_numbers(values):
    with pytest.raises(ValueError, match="at least"):
        RayEngine(**values)
