"""Items in workers: deaths, time limits, and workers that cannot start."""

from __future__ import annotations

import collections
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tokenization.engines import devices
from tokenization.engines.crew import DIED, LATE, Crew, Patience
from tokenization.engines.inline import InlineEngine
from tokenization.engines.local import LocalEngine
from tokenization.engines.protocol import Done, Ended, EngineError, Started

SCRIPT = """
import collections, contextlib, os, signal, sys, time
from pathlib import Path
from tokenization.engines.crew import Crew, Patience
from tokenization.engines.local import LocalEngine

def work(item):
    return item * 2

def make():
    return work

def gave_up(item, troubles):
    return f"{item} gave up: {troubles}"

def run(items, patience=None, workers=2):
    with LocalEngine(workers) as engine:
        crew = Crew(engine, make, give_up=gave_up, patience=patience)
        return [result for _, result in sorted(crew.map(items))]
"""


@pytest.fixture
def script(tmp_path):
    """Runs a script of its own, as spawned processes import the main module again."""

    def run(body: str, **kwargs) -> subprocess.CompletedProcess[str]:
        path: Path = tmp_path / "script.py"
        path.write_text(SCRIPT + body)
        line = [sys.executable, path]
        return subprocess.run(line, check=False, capture_output=True, text=True, **kwargs)

    return run


class FakeWorker:
    where = "fake"

    def __init__(self):
        self.items = collections.deque()
        self.killed = False

    def give(self, item):
        self.items.append(item)

    def kill(self):
        self.killed = True


class FakeEngine:
    """An engine without processes, whose workers do what `act` says of a worker with items."""

    def __init__(self, act, room=2):
        self.act, self._room, self.workers, self.fresh = act, room, [], []

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        pass

    def room(self):
        return self._room

    def start(self, make):
        self.workers.append(FakeWorker())
        self.fresh.append(self.workers[-1])
        return self.workers[-1]

    def wait(self, seconds):
        if self.fresh:
            return [Started(self.fresh.pop(0))]
        for worker in self.workers:
            if worker.items and not worker.killed and (news := self.act(worker)) is not None:
                if isinstance(news, Ended):
                    self.workers.remove(worker)
                return [news]
        time.sleep(min(seconds, 0.05))
        return []


def done(worker):
    return Done(worker, worker.items.popleft() * 2)


def crew(engine, **kwargs):
    def give_up(item, troubles):
        return (item, troubles)

    return Crew(engine, lambda: str, give_up=give_up, **kwargs)


def test_all_is_done_once_in_this_process():
    engine = InlineEngine()
    with engine:
        found = list(crew(engine).map(list(range(5))))
    assert found == [(i, str(i)) for i in range(5)]


def test_what_the_function_raises_reaches_the_caller():
    def fail(item):
        raise KeyError("no weights")

    with InlineEngine() as engine:
        items = Crew(engine, lambda: fail, give_up=lambda item, why: item).map([1])
        with pytest.raises(KeyError, match="no weights"):
            next(items)


def test_the_first_item_of_a_dead_worker_is_blamed_and_the_others_are_not():
    deaths = collections.Counter()

    def act(worker):
        if worker.items[0] == 3:
            deaths[3] += 1
            return Ended(worker, "killed")
        return done(worker)

    found = dict(crew(FakeEngine(act)).map(list(range(8))))
    assert found.pop(3) == (3, (DIED,) * 3) and deaths[3] == 3
    assert found == {i: 2 * i for i in range(8) if i != 3}


def test_a_result_that_is_lost_with_the_worker_costs_no_item_twice():
    """Item 3 kills its worker before the result of the item ahead of it has arrived."""

    def act(worker):
        if 3 in worker.items:
            return Ended(worker, "killed")
        return done(worker)

    found = crew(FakeEngine(act, room=1), patience=Patience(tries=2)).map(range(6))
    assert dict(found) == {i: 2 * i for i in range(6)} | {3: (3, (DIED,) * 2)}


def test_a_machine_that_goes_away_blames_nobody():
    """As often as it likes: spot instances."""
    losses = iter(range(20))

    def act(worker):
        if next(losses, None) is not None:
            return Ended(worker, "its node has gone", lost=True)
        return done(worker)

    assert dict(crew(FakeEngine(act)).map([1, 2, 3])) == {0: 2, 1: 4, 2: 6}


def test_an_item_that_takes_too_long_is_given_up_and_its_workers_are_killed():
    def act(worker):
        return None if worker.items[0] == 1 else done(worker)

    engine = FakeEngine(act, room=1)
    found = dict(crew(engine, patience=Patience(2, 0.1)).map([0, 1, 2]))
    assert found == {0: 0, 1: (1, (LATE,) * 2), 2: 4}
    assert sum(worker.killed for worker in engine.workers) == 2


def test_time_that_the_caller_takes_is_not_the_workers():
    """It writes a shard for longer than an item may take: who is done meanwhile is not late."""
    engine = FakeEngine(done)
    found = []
    for result in crew(engine, patience=Patience(1, 0.1)).map([5, 6]):
        found.append(result)
        time.sleep(0.3)
    assert sorted(found) == [(0, 10), (1, 12)]
    assert not any(worker.killed for worker in engine.workers)


def test_what_comes_of_a_killed_worker_does_not_count():
    """Its item was given to another meanwhile: one result, not two."""

    class Slow(FakeEngine):
        told = False

        def wait(self, seconds):
            first = self.workers[0]
            if first.killed and not self.told:
                self.told = True
                return [Done(first, "too late")]
            return super().wait(seconds)

    engine = Slow(lambda worker: None if worker is engine.workers[0] else done(worker), room=1)
    found = list(crew(engine, patience=Patience(3, 0.1)).map([5, 6]))
    assert engine.told and sorted(found) == [(0, 10), (1, 12)]


def test_workers_that_always_die_end_the_run_and_not_all_videos():
    engine = FakeEngine(lambda worker: Ended(worker, "killed"))
    with pytest.raises(EngineError, match="it is not the videos"):
        list(crew(engine).map(list(range(1000))))


def test_when_no_machine_is_fit_the_error_says_why():
    class Unfit(FakeEngine):
        def wait(self, seconds):
            if self.fresh:
                return [Ended(self.fresh.pop(0), "cannot download weights")]
            return super().wait(seconds)

    engine = Unfit(done)
    with pytest.raises(EngineError, match="cannot start, the last one: cannot download weights"):
        list(crew(engine).map([1, 2]))
    assert not any(worker.items for worker in engine.workers)


def test_a_machine_that_never_is_fit_ends_no_run(monkeypatch):
    """However often it is tried: a day has more than a thousand minutes."""
    clock = itertools.count(step=100)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))

    class OneIsFit(FakeEngine):
        def wait(self, seconds):
            unfit = [worker for worker in self.fresh if worker is not self.workers[0]]
            for worker in unfit:
                self.fresh.remove(worker)
                self.workers.remove(worker)
            ends = [Ended(worker, "cannot download weights") for worker in unfit]
            return ends + super().wait(seconds)

    one = crew(OneIsFit(done), patience=Patience(3, None))
    assert len(list(one.map(range(1500)))) == 1500
    assert one._failed_starts > 1024


def test_no_more_workers_than_items():
    engine = FakeEngine(done, room=64)
    one = crew(engine)
    assert len(list(one.map([1, 2, 3]))) == 3
    assert len(engine.workers) == 3 and one.most <= 3


@pytest.mark.parametrize("values", [(0, 1.0), (1, 0.0), (1, 1.0, 1)])
def test_patience_without_a_try_or_time(values):
    with pytest.raises(ValueError, match="must be"):
        Patience(*values)


def test_processes_do_all_items_in_parallel(script):
    """Two that wait for each other can only end together."""
    body = (
        "def work(item):\n"
        "    mine, other = Path(f'{item}.here'), Path(f'{1 - item}.here')\n"
        "    mine.touch()\n"
        "    while not other.exists():\n"
        "        time.sleep(0.01)\n"
        "    return os.getpid()\n"
        "if __name__ == '__main__':\n"
        "    os.chdir(Path(__file__).parent)\n"
        "    print(len(set(run([0, 1]))))\n"
    )
    done = script(body, timeout=60)
    assert done.stdout.strip() == "2", done.stderr


def test_a_dying_process_costs_one_video(script):
    """As when a library crashes or memory runs out."""
    done = script(
        "def work(item):\n"
        "    if item == 'b':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return item * 2\n"
        "if __name__ == '__main__':\n"
        "    print(run('abcd', Patience(tries=2)))\n"
    )
    gave_up = f"b gave up: {(DIED, DIED)}"
    assert done.stdout.strip() == str(["aa", gave_up, "cc", "dd"]), done.stderr
    assert "at b, try 2 of 2: killed by SIGKILL" in done.stderr


def test_a_process_that_is_killed_once_loses_nothing(script, tmp_path):
    done = script(
        "def work(item):\n"
        "    mark = Path(__file__).with_name('killed')\n"
        "    if item == 1 and not mark.exists():\n"
        "        mark.touch()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return item\n"
        "if __name__ == '__main__':\n"
        "    print(run(list(range(6))))\n"
    )
    assert done.stdout.strip() == str(list(range(6))), done.stderr
    assert (tmp_path / "killed").exists()


def test_a_process_that_hangs_is_killed(script):
    done = script(
        "def work(item):\n"
        "    time.sleep(600 * (item == 1))\n"
        "    return item\n"
        "if __name__ == '__main__':\n"
        "    print(run([0, 1, 2], Patience(1, 1.0)))\n",
        timeout=60,
    )
    assert done.stdout.strip() == str([0, f"1 gave up: {(LATE,)}", 2]), done.stderr


def test_large_items_and_results_do_not_block_each_other(script):
    """More than a pipe holds, in both directions at once."""
    done = script(
        "if __name__ == '__main__':\n"
        "    found = run([bytes(10**6)] * 12, workers=1)\n"
        "    print(len(found), {len(each) for each in found})\n",
        timeout=60,
    )
    assert done.stdout.strip() == "12 {2000000}", done.stderr


def test_a_script_without_a_guard_is_told_so(script):
    done = script("print(run('abcd'))\n")
    assert done.returncode != 0
    # Python's own messages, of the workers and at its end, may stand before and behind it.
    _, said, remedy = done.stderr.rpartition("EngineError: worker processes cannot start")
    assert said and "if __name__ == '__main__'" in remedy
    assert "gave up" not in done.stdout


def test_what_making_the_function_raises_reaches_the_caller(script):
    done = script(
        "def make():\n"
        "    raise KeyError('no weights')\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        "        print(run('abcd'))\n"
        "    except KeyError as error:\n"
        "        print('caught', error)\n"
    )
    assert done.stdout.strip() == "caught 'no weights'", done.stderr


def test_the_items_of_a_worker_that_is_unfit_go_to_another(script):
    """Its memory or device failed: each process here does one item and fails at the next."""
    done = script(
        "from tokenization.engines.protocol import WorkerUnfit\n"
        "def make():\n"
        "    left = ['one']\n"
        "    def work(item):\n"
        "        if not left:\n"
        "            raise WorkerUnfit('no device')\n"
        "        return left.pop() and item * 2\n"
        "    return work\n"
        "if __name__ == '__main__':\n"
        "    print(run('abc', workers=1))\n"
    )
    assert done.stdout.strip() == str(["aa", "bb", "cc"]), done.stderr
    assert "at b, try 1 of 3: no device" in done.stderr


def test_what_waits_is_begun_while_another_is_in_work(script):
    """Items come two at a time: the second one is begun before the first is done."""
    done = script(
        "import threading\n"
        "class Work:\n"
        "    def __init__(self):\n"
        "        self.begun = {item: threading.Event() for item in 'abcd'}\n"
        "    def ahead(self, item):\n"
        "        self.begun[item].set()\n"
        "    def __call__(self, item):\n"
        "        return self.begun[{'a': 'b', 'b': 'c'}.get(item, item)].wait(30)\n"
        "if __name__ == '__main__':\n"
        "    make = Work\n"
        "    print(run('abcd', workers=1))\n"
    )
    assert done.stdout.strip() == str([True] * 4), done.stderr


def test_an_error_that_no_pipe_takes_is_told_in_words(script):
    done = script(
        "class Odd(Exception):\n"
        "    def __init__(self, one, two):\n"
        "        super().__init__(one)\n"
        "def work(item):\n"
        "    raise Odd('strange', 2)\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        "        run('a')\n"
        "    except RuntimeError as error:\n"
        "        print('caught', error)\n"
    )
    assert done.stdout.strip() == "caught Odd: strange", done.stderr


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")
@pytest.mark.parametrize(
    "end",
    ["mapped.close(); engine.__exit__(None, None, None)", "os.kill(os.getpid(), 9)"],
    ids=["closed", "killed"],
)
def test_no_process_is_left_at_work(script, end):
    """When the caller is interrupted, or killed, in the middle."""
    done = script(
        "def work(item):\n"
        "    if item:\n"
        "        time.sleep(600)\n"
        "    return os.getpid()\n"
        "if __name__ == '__main__':\n"
        "    engine = LocalEngine(2)\n"
        "    mapped = Crew(engine, make, give_up=gave_up).map(list(range(9)))\n"
        "    print(next(mapped)[1], flush=True)\n"
        f"    {end}\n"
    )
    worker = Path("/proc", done.stdout.strip(), "stat")
    deadline = time.monotonic() + 60
    while worker.exists() and worker.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_each_process_has_its_gpu(script):
    """Here only the variable that CUDA looks at: no GPU is needed."""
    done = script(
        "def make():\n"
        "    time.sleep(0.5)\n"
        "    gpu = os.environ['CUDA_VISIBLE_DEVICES']\n"
        "    return lambda item: (time.sleep(0.2), gpu)[1]\n"
        "if __name__ == '__main__':\n"
        "    with LocalEngine(gpus=['4', '7']) as engine:\n"
        "        crew = Crew(engine, make, give_up=gave_up)\n"
        "        print(sorted({gpu for _, gpu in crew.map(list(range(12)))}), crew.most)\n"
    )
    assert done.stdout.strip() == "['4', '7'] 2", done.stderr


def test_a_process_in_place_of_a_killed_one_has_its_gpu(script):
    done = script(
        "if __name__ == '__main__':\n"
        "    with LocalEngine(gpus=['4', '7']) as engine:\n"
        "        _, late = engine.start(make), engine.start(make)\n"
        "        late.kill()\n"
        "        print(late.gpu, engine.start(make).gpu, engine.start(make).gpu)\n"
    )
    assert done.stdout.strip() == "7 7 4", done.stderr


def test_gpus_are_those_that_cuda_would_see(tmp_path):
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert devices.visible_gpus({}, tmp_path) == ("0", "1", "10")
    for named, expected in {"": (), "2, 3": ("2", "3"), "-1": (), "1,-1,2": ("1",)}.items():
        assert devices.visible_gpus({"CUDA_VISIBLE_DEVICES": named}, tmp_path) == expected


def test_cores_that_are_not_ours_are_not_counted(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5}, raising=False)
    assert devices.available_cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert devices.available_cores() == 64


def test_less_than_one_process():
    with pytest.raises(ValueError, match="at least 1"):
        LocalEngine(0)
