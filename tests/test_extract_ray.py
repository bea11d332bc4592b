"""The launcher of extractions on many machines: what it starts, ends and starts again."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest

SCRIPT = Path(__file__).parent.parent / "launch" / "extract_ray.sh"

pytestmark = pytest.mark.skipif(
    shutil.which("bash") is None or os.name != "posix", reason="needs bash and POSIX signals"
)


def stub(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{text}\n", "utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def launch(tmp_path):
    """Starts the script, with programs named `python` and `ray` unless others are given."""

    def start(*arguments: object, python: object = None) -> subprocess.Popen:
        if python is None:
            python = stub(tmp_path / "bin" / "python", 'echo "$@"')
            stub(tmp_path / "bin" / "ray", "exit 0")
        return subprocess.Popen(
            [SCRIPT, *map(str, arguments)],
            env=os.environ | {"PYTHON": str(python), "PATH": f"{tmp_path}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )

    return start


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    stdout, stderr = process.communicate(timeout=240)
    return process.returncode, stdout, stderr


def test_help_teaches(launch):
    code, stdout, stderr = finish(launch("--help"))
    assert (code, stderr) == (0, "")
    assert "--hosts=a,b,c" in stdout and "quarantine.jsonl" in stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--input=... --output=... is missing"),
        (["--input=a"], "unknown option '--input=a'"),
        (["--", "--input=a"], "--output=DIR is missing"),
        (["--hosts=a", "--address=b", "--", "--output=c"], "exclude each other"),
        (["--not-here", "--", "--output=c"], "--not-here needs --hosts"),
        (["--port=x", "--", "--output=c"], "--port must be 1 to 65535, not 'x'"),
        (["--port=99999", "--", "--output=c"], "--port must be 1 to 65535, not '99999'"),
        (["--retries=09", "--", "--output=c"], "--retries must be a whole number, not '09'"),
        (["--hosts=", "--", "--output=c"], "names a host without a name"),
        (["--hosts=a,,b", "--", "--output=c"], "names a host without a name"),
        (["--hosts=a,me@a", "--", "--output=c"], "names a twice; name each host once"),
        (["--hosts=-oProxyCommand=b", "--", "--output=c"], "is no name of a host"),
        (["--", "--output=c", "--engine=local"], "is this script's own business"),
        (["--", "--output=c", "--engine", "local"], "--engine=local is this script's own business"),
        (["--hosts"], "--hosts has no value"),
        (["--", "--output=c", "--input=nowhere.jsonl"], "--input=nowhere.jsonl does not exist"),
        (["--dry-run", "--", "--output=c", "--config=no.py:a=1"], "--config=no.py:a=1: there is"),
    ],
)
def test_wrong_commands_are_told(launch, tmp_path, arguments, said):
    code, _, stderr = finish(launch(*arguments))
    assert code == 2 and said in stderr
    assert not (tmp_path / "c").exists()


def test_values_may_stand_apart(launch, tmp_path):
    (tmp_path / "a.jsonl").touch()
    arguments = ("--hosts", "gpu1,gpu2", "--port", "7000", "--dry-run", "--ip", "10.0.0.1")
    flags = ("--input", "a.jsonl", "--output", "out")
    code, stdout, _ = finish(launch(*arguments, "--", *flags))
    assert code == 0 and "gpu2" in stdout.splitlines()[2]
    assert stdout.splitlines()[-1].endswith(
        "--input a.jsonl --output out --engine=ray --address=10.0.0.1:7000 "
    )


def test_options_may_be_written_as_those_of_python(launch):
    options = ("--hosts=gpu1", "--ip=10.0.0.1", "--not_here", "--dry_run")
    code, stdout, stderr = finish(launch(*options, "--", "--output=a_b", "--its_own=x_y"))
    assert (code, stderr) == (0, "")
    assert "--num-cpus=0" in stdout and "--output=a_b --its_own=x_y" in stdout


def test_a_home_folder_is_looked_up(launch, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.jsonl").touch()
    code, _, stderr = finish(launch("--dry-run", "--", "--output=c", "--input=~/a.jsonl"))
    assert (code, stderr) == (0, "")
    code, _, stderr = finish(launch("--dry-run", "--", "--output=c", "--input=~/b.jsonl"))
    assert code == 2 and "--input=~/b.jsonl does not exist" in stderr


def test_an_extraction_that_fails_late_keeps_its_logs(launch, tmp_path):
    work = f"mkdir -p {tmp_path}/out/shards; echo why >&2; exit 2"
    python = stub(tmp_path / "bin" / "python", work)
    stub(tmp_path / "bin" / "ray", "exit 0")
    assert finish(launch("--", f"--output={tmp_path}/out", python=python))[0] == 2
    assert "why" in (tmp_path / "out" / "logs" / "extract.log").read_text()


@pytest.mark.parametrize(("code", "kept"), [(2, False), (1, True)])
def test_an_extraction_that_was_asked_wrong_leaves_nothing(launch, tmp_path, code, kept):
    python = stub(tmp_path / "bin" / "python", f"echo why >&2; exit {code}")
    stub(tmp_path / "bin" / "ray", "exit 0")
    got, _, stderr = finish(launch("--", f"--output={tmp_path}/out", python=python))
    assert (got, stderr) == (code, "why\n")
    assert (tmp_path / "out").exists() == kept
    (tmp_path / "out" / "logs").mkdir(parents=True, exist_ok=True)  # of a run before
    finish(launch("--", f"--output={tmp_path}/out", python=python))
    assert "why" in (tmp_path / "out" / "logs" / "extract.log").read_text()


def test_a_dry_run_shows_all_and_no_secret(launch, tmp_path):
    (tmp_path / "a b.jsonl").touch()
    where = ("--hosts=me@gpu1,gpu2", "--ip=10.0.0.1", "--port=7000", "--not-here", "--dry-run")
    code, stdout, _ = finish(launch(*where, "--", "--input=a b.jsonl", "--output=out"))
    head, one, other, command = stdout.splitlines()
    assert code == 0
    assert "start --head" in head and "--port=7000" in head and "--num-cpus=0" in head
    assert one.startswith("ssh ") and "me@gpu1" in one and "gpu2" in other
    assert "10.0.0.1:7000" in one and "10.0.0.1:7000" in other
    assert command.split()[1:3] == ["-m", "tokenization.extract"]
    assert "a\\ b.jsonl" in command and "--engine=ray --address=10.0.0.1:7000" in command
    assert "RAY_AUTH_TOKEN=" not in stdout


@pytest.mark.parametrize(
    ("codes", "retries", "code", "starts"),
    [("0", 5, 0, 1), ("1", 5, 1, 1), ("137 75 0", 5, 0, 3), ("137 137 0", 1, 137, 2)],
)
def test_what_was_killed_is_started_again(launch, tmp_path, codes, retries, code, starts):
    """Not what ended by itself: the same command would end the same way."""
    python = stub(
        tmp_path / "bin" / "python",
        f'codes=({codes}); echo x >>"{tmp_path}/starts"\n'
        f'code=${{codes[$(wc -l <"{tmp_path}/starts") - 1]}}\n'
        "((code < 128)) || kill -$((code - 128)) $$\n"
        'exit "$code"',
    )
    stub(tmp_path / "bin" / "ray", "exit 0")
    process = launch(f"--retries={retries}", "--", f"--output={tmp_path}/out", python=python)
    got, _, stderr = finish(process)
    assert got == code, stderr
    assert len((tmp_path / "starts").read_text().splitlines()) == starts


def test_ctrl_c_reaches_the_extraction_and_nothing_starts_again(launch, tmp_path):
    python = stub(
        tmp_path / "bin" / "python",
        f'trap "echo stopping >&2; exit 130" INT; touch "{tmp_path}/here"\n'
        "while true; do sleep 0.05; done",
    )
    stub(tmp_path / "bin" / "ray", "exit 0")
    process = launch("--", f"--output={tmp_path}/out", python=python)
    while not (tmp_path / "here").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    code, _, stderr = finish(process)
    assert code == 130 and "stopping" in stderr
    assert "stopping" in (tmp_path / "out" / "logs" / "extract.log").read_text()


def test_the_script_is_clean():
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    checker = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if checker:
        done = subprocess.run([checker, "-x", SCRIPT], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.ray
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_a_host_does_the_work_and_all_ends_with_it(launch, tmp_path):
    """`ssh` is replaced: it runs the command here, in a session that gets no signals."""
    ssh = 'while [[ $1 == -o ]]; do shift 2; done; exec setsid --wait bash -c "$2"'
    stub(tmp_path / "ssh", ssh)
    videos = tmp_path / "videos"
    videos.mkdir()
    for number in range(4):
        with av.open(str(videos / f"{number}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for level in range(20 * number, 20 * number + 8):
                rgb = np.full((48, 64, 3), level, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, "rgb24")))
            container.mux(stream.encode())
    process = launch(
        *("--hosts=me@gpu1", "--ip=127.0.0.1", f"--port={20000 + os.getpid() % 9000}"),
        *("--not-here", "--", f"--input={videos}", f"--output={tmp_path}/out"),
        python=sys.executable,
    )
    code, stdout, stderr = finish(process)
    log = (tmp_path / "out" / "logs" / "ray-gpu1.log").read_text()
    assert code == 0, stdout + stderr + log
    assert "4 videos" in stdout
    assert "Ray runtime started" in log
