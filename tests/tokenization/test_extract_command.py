"""The extract command: what it prints, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tokenization import extract, missing, records
from tokenization.frames_asked import asking_for
from tokenization.recorder import ExtractSettings
from tokenization.splits import OutputError
from trajvit_jax import config as configs


def command(*args: object, **kwargs) -> subprocess.Popen:
    line = [sys.executable, "-m", "tokenization.extract", *map(str, args)]
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs
    )


def test_the_command(entries, clips, tmp_path):
    clips.data("empty.mp4", b"")
    out = tmp_path / "out"
    config = clips.data(
        "config.py",
        b"import ml_collections\n"
        b"def get_config(arg=None):\n"
        b"    return ml_collections.ConfigDict({'pipeline': {'frames': 4}, 'record_size': 32})\n",
    )
    process = command(
        f"--input={clips.root}/[acs]*.mp4",
        f"--output={out}",
        f"--config={config}",
        "--workers=1",
        "--weights=random",
    )
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert "3 videos, 12 frames" in stdout and "fewer tokens" in stdout
    assert stdout.count("1 video with fewer frames than asked") == 1
    assert f"asked (short): the last one is repeated; pipeline.frames of {config}" in stdout
    assert "fewer frames" not in stderr
    assert "warning: --weights=random is not used: classical and flow need none" in stderr
    assert "videos a second, processes: 1" in stdout
    assert "extract: 100%" in stderr
    listed = clips.data("list.jsonl", b'{"id": "empty", "path": "empty.mp4"}\n')
    clips.data("list.missing.txt", b"gone_0\tgone.mp4\ngone_1\tgone.mp4\n")
    process = command(f"--input={listed}", f"--output={tmp_path}/bad", "--workers=1")
    stdout, stderr = process.communicate()
    assert process.returncode == 1
    assert "100.0% of the videos could not be read, more than --max_bad=5.0%" in stderr
    assert f"empty: {clips.root}/empty.mp4 is empty (0 bytes); copy or download" in stdout
    assert "1 video could not be read" in stdout and "fewer tokens" not in stdout
    gone = missing.read_kept(tmp_path / "bad", "train")
    assert gone == dict.fromkeys(("gone_0", "gone_1"), "gone.mp4")


def test_the_command_says_that_its_workers_cannot_start(clips, tmp_path):
    clips.video("a.mp4")
    script = (
        "from absl import app\n"
        "from tokenization import extract\n"
        "from tokenization.engines import local\n"
        "class Ending(local._Process):\n"
        "    def __init__(self, make, gpu):\n"
        "        super().__init__(make, gpu)\n"
        "        self.process.kill()\n"
        "local._Process = Ending\n"
        "extract.define_flags()\n"
        "app.run(extract.main)\n"
    )
    arguments = [f"--input={clips.root / 'a.mp4'}", f"--output={tmp_path / 'out'}"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "error: worker processes cannot start" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "flags", [("--engine=ray",), ("--address=auto",), ("--gpus_per_worker=1",)], ids=str
)
def test_engines_that_cannot_be_had(flags, clips, tmp_path):
    """Ray is not installed here, or made to seem so; its flags are refused without it."""
    clips.video("a.mp4")
    script = (
        "import sys\n"
        "from absl import app\n"
        "sys.modules['ray'] = None\n"
        "from tokenization import extract\n"
        "extract.define_flags()\n"
        "app.run(extract.main)\n"
    )
    arguments = [f"--input={clips.root / 'a.mp4'}", f"--output={tmp_path / 'out'}", *flags]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], check=False, capture_output=True, text=True
    )
    without = "ray" in flags[0]
    assert done.returncode == (1 if without else 2) and "Traceback" not in done.stderr
    assert ("make ray" if without else "is of --engine=ray") in done.stderr


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_no_error(flag):
    process = command(flag)
    stdout, stderr = process.communicate()
    assert (process.returncode, stderr) == (0, "")
    assert "--input" in stdout and "python -m tokenization.extract" in stdout


def test_the_command_says_what_is_wrong_with_its_input(tmp_path):
    (tmp_path / "bad.jsonl").write_text("{no json\n")
    process = command(f"--input={tmp_path}/bad.jsonl", f"--output={tmp_path}/out")
    _, stderr = process.communicate()
    assert process.returncode == 2
    assert "bad.jsonl line 1: " in stderr and "Traceback" not in stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            "import ml_collections as m\ndef get_config(arg=None):\n"
            "    return m.ConfigDict({'model': {}, 'steps': 3})\n",
            "config.model is not a setting",
        ),
        (None, "does not exist"),
    ],
)
def test_a_config_of_another_kind_is_told(clips, tmp_path, config, reason):
    clips.video("a.mp4")
    path = clips.root / "config.py"
    if config:
        path.write_text(config)
    process = command(f"--input={clips.root}/a.mp4", f"--output={tmp_path}/out", f"--config={path}")
    _, stderr = process.communicate()
    assert process.returncode == 2
    assert reason in stderr and "Traceback" not in stderr


@pytest.mark.parametrize(
    ("number", "presses", "code", "who"),
    [
        (signal.SIGINT, 1, 130, ""),
        (signal.SIGINT, 2, 130, ""),
        (signal.SIGTERM, 1, 75, "SIGTERM: "),
    ],
)
def test_a_signal_leaves_nothing_half_written(clips, tmp_path, number, presses, code, who):
    """Ctrl-C, once, or twice as by someone in a hurry; or what `kill` and schedulers send."""
    content = clips.video(frames=4).read_bytes()
    (clips.root / "v").mkdir()
    for index in range(40):
        clips.data(f"v/{index:02d}.mp4", content)
    out = tmp_path / "out"
    config = clips.data(
        "config.py",
        b"import ml_collections\n"
        b"def get_config(arg=None):\n"
        b"    return ml_collections.ConfigDict(\n"
        b"        {'pipeline': {'frames': 4}, 'shard_size': 7, 'record_size': 32})\n",
    )
    args = (f"--input={clips.root}/v", f"--output={out}", f"--config={config}", "--workers=2")
    process = command(*args, start_new_session=True)
    while not list(out.glob("shards/train-*.journal")) and process.poll() is None:
        time.sleep(0.01)
    for _ in range(presses):
        os.killpg(process.pid, number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert f"\n{who}stopping; what is finished is kept; " in stderr
    assert "run the same command again to go on" in stderr and "Traceback" not in stderr
    assert not list(out.rglob("*.partial"))
    told = re.search(
        r"interrupted; (\d+) of 40 videos (?:is|are) done and kept; run the same", stderr
    )
    assert told, stderr
    finished = int(told[1])
    assert 7 * len(records.finished_shards(out)) <= finished < 40
    if presses == 1:
        return
    stdout, stderr = command(*args).communicate()
    assert f"40 videos, 160 frames ({finished} w" in stdout, stderr


ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
OURS = [CONFIGS / "tokenization" / f"{name}.py" for name in ("classical", "paper", "released")]
OURS += [CONFIGS / "tokenization" / "pretrained_demo.py"]


def test_configs_of_other_commands_are_told(monkeypatch):
    monkeypatch.chdir(ROOT)
    for path in CONFIGS.rglob("*.py"):
        if path in OURS:
            configs.read(ExtractSettings, str(path), "tokenization.extract")
            continue
        with pytest.raises(configs.ConfigError, match=r"is a config of python -m ") as caught:
            configs.read(ExtractSettings, str(path), "tokenization.extract")
        message = str(caught.value)
        assert f"{path} is a config of" in message
        assert "tokenization.extract takes configs/tokenization/classical.py, " in message
        assert ("trajvit_jax.models.summary" in message) == (path.name == "models.py")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("classical.py:frames=8,limit=-1", "classical.py:limit=-1: PipelineSettings.clip_limit"),
        ("paper.py:sam2=smal", "paper.py:sam2=smal: Sam2Settings.size = 'smal': did you mean"),
        ("paper.py:frames", "paper.py: config argument 'frames' has no value; write it like"),
        ("pretrained_demo.py:x=1", "unknown config argument 'x': this config takes none"),
        ("classical.py:frames=8,frames=9", "config argument 'frames' is given twice"),
    ],
)
def test_settings_are_told_as_they_were_typed(arguments, said, clips, tmp_path):
    clips.video("a.mp4")
    file = arguments.partition(":")[0]
    process = command(
        f"--input={clips.root}/a.mp4",
        f"--output={tmp_path}/out",
        f"--config={CONFIGS}/tokenization/{arguments}",
    )
    _, stderr = process.communicate()
    assert process.returncode == 2
    first, last = stderr.splitlines()
    assert said in first and file in first
    assert (
        last
        == f"See --help, and `python -m pydoc {CONFIGS}/tokenization/{file}` for its arguments."
    )


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (None, "--config=configs/tokenization/classical.py:frames=N asks for N"),
        ("paper.py:frames=4,limit=2", "/paper.py:limit=2,frames=N asks for N"),
        ("pretrained_demo.py", "pipeline.frames of "),
    ],
)
def test_who_asks_for_frames_is_told(config, said):
    assert said in asking_for(config and f"{CONFIGS}/tokenization/{config}")


def test_a_config_that_fails_with_other_arguments_ends_no_run(tmp_path):
    """It is asked after all is done."""
    path = tmp_path / "mine.py"
    path.write_text("def get_config(arg=None):\n    return {None: {}}[arg]\n", "utf-8")
    assert asking_for(str(path)) == f"pipeline.frames of {path} is how many"
    assert asking_for("gone.py") == "pipeline.frames of gone.py is how many"


def test_records_go_beside_the_videos(tmp_path, capsys):
    with pytest.raises(OutputError, match="is the folder of the videos itself; give the records"):
        extract._check_output(str(tmp_path), f"{tmp_path}/.")
    extract._check_output(str(tmp_path), f"{tmp_path}/records")
    assert "warning: " in capsys.readouterr().err
    (tmp_path / "shards").mkdir()  # made so before this was refused
    extract._check_output(str(tmp_path), str(tmp_path))
    extract._check_output(f"{tmp_path}/*.mp4", f"{tmp_path}-records")
    assert capsys.readouterr().err == ""
