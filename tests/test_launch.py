"""Pods: the real one on this machine, and what the launcher does with exit codes and signals."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
LAUNCH = ROOT / "launch"
SCRIPTS = [LAUNCH / name for name in ("common.sh", "run_pod.sh", "run_host.sh", "slurm.sbatch")]
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
ELSEWHERE = ("SLURM_", "TRAJVIT_", "XLA_", "JAX_", "JOB_COMPLETION_INDEX")

pytestmark = pytest.mark.skipif(
    shutil.which("bash") is None or os.name != "posix", reason="needs bash and POSIX signals"
)


# Waits for a signal, says which came, and takes a moment to save.
WAITS = (
    "import os, signal, sys, time\n"
    "codes = []\n"
    "def note(number, frame):\n"
    "    print('got', signal.Signals(number).name)\n"
    "    codes.append(130 if number == signal.SIGINT else 75)\n"
    "for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):\n"
    "    signal.signal(number, note)\n"
    "print(os.environ.get('TRAJVIT_COORDINATOR', 'slurm:1'), 'ready')\n"
    "while not codes: time.sleep(0.02)\n"
    "time.sleep(0.3)\n"
    "sys.exit(codes[0])\n"
)


def pod(*arguments: str, **env: str) -> subprocess.Popen:
    plain = {name: text for name, text in os.environ.items() if not name.startswith(ELSEWHERE)}
    return subprocess.Popen(
        [LAUNCH / "run_pod.sh", *arguments],
        env=plain | {"PYTHON": sys.executable} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    stdout, stderr = process.communicate(timeout=120)
    return process.returncode, stdout, stderr


def log(workdir: Path, number: int = 0) -> str:
    return (workdir / "logs" / f"process-{number}.log").read_text("utf-8")


def stub(path: Path, text: str) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/usr/bin/env bash\n{text}\n", "utf-8")
    path.chmod(0o755)
    return str(path)


def wait_for(condition, process: subprocess.Popen) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


@pytest.mark.parametrize("two", ["--local-processes=2", "--processes-per-host=2"])
def test_two_processes_of_four_devices_add_up_eight(tmp_path, two):
    program = tmp_path / "program.py"
    program.write_text(
        "import os, time\n"
        "from trajvit_jax.pod import cluster\n"
        "here = cluster.from_environment(os.environ)\n"
        "cluster.start(here)\n"
        "began = time.monotonic()\n"
        "for _ in range(2):\n"
        "    time.sleep(0.5 * here.process)\n"
        "    cluster.wait_for_all('the test')\n"
        "print('\\nwaited for the slow one:', time.monotonic() - began > 0.9)\n"
        "import jax, jax.numpy as jnp\n"
        "from jax.sharding import PartitionSpec as P\n"
        "mesh = jax.make_mesh((8,), ('data',))\n"
        "mine = jnp.arange(8.0)[4 * jax.process_index():][:4]\n"
        "x = jax.make_array_from_process_local_data(jax.NamedSharding(mesh, P('data')), mine)\n"
        "add = lambda x: jax.lax.psum(x.sum(), 'data')\n"
        "total = jax.jit(jax.shard_map(add, mesh=mesh, in_specs=P('data'), out_specs=P()))(x)\n"
        "print(f'\\nprocess {jax.process_index()}: {float(total)}', flush=True)\n"
        "cluster.stop(here)\n"
    )
    command = (sys.executable, str(program))
    where = (f"--workdir={tmp_path}/run", two, "--cpu-devices=4", "--retries=0")
    code, stdout, stderr = finish(pod(*where, "--", *command, PYTHONPATH=str(ROOT)))
    assert code == 0, stdout + stderr
    for number in range(2):
        text = log(tmp_path / "run", number)
        assert re.search(
            rf"^\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d .*process {number}: 28.0$", text, re.M
        )
        assert "waited for the slow one: True" in text
        assert f"process {number} of 2 on" in text and "==== exit code 0" in text
    assert "process 0: 28.0" in stdout and "process 1: 28.0" not in stdout


@pytest.mark.parametrize(
    ("codes", "arguments", "code", "said"),
    [
        ("0", [], 0, "done"),
        ("75 75 0", ["--retries=0"], 0, "preempted and saved: starting again"),
        ("1 134 0", ["--retries=2"], 0, r"failed with exit code 134 \(2 of 2\)"),
        ("3 4 5", ["--retries=1"], 4, r"failed 2 times in a row \(exit code 4\): giving up"),
        ("2 0", [], 2, "a wrong command or config"),
        ("130 0", [], 130, "starting"),
    ],
)
def test_exit_codes_decide_what_is_started_again(tmp_path, codes, arguments, code, said):
    """The program ends with the n-th code at its n-th start."""
    program = stub(
        tmp_path / "program",
        f'codes=({codes}); echo x >>"{tmp_path}/starts"\n'
        f'exit "${{codes[$(wc -l <"{tmp_path}/starts") - 1]}}"',
    )
    where = (f"--workdir={tmp_path}/run", "--backoff=0", *arguments)
    got, _, stderr = finish(pod(*where, "--", program))
    assert got == code and re.search(said, stderr), stderr
    starts = len((tmp_path / "starts").read_text().splitlines())
    assert starts == codes.split().index(str(code)) + 1
    assert log(tmp_path / "run").count("==== exit code") == starts


def test_a_file_that_the_output_goes_to_keeps_what_it_has(tmp_path):
    """As that of a SLURM job, to which each start adds."""
    program = stub(tmp_path / "program", f'echo x >>"{tmp_path}/starts"; echo said; exit 1')
    shown = tmp_path / "shown"
    shown.write_text("before\n")
    where = (f"--workdir={tmp_path}/run", "--backoff=0", "--retries=1")
    with shown.open("a") as file:
        line = [LAUNCH / "run_pod.sh", *where, "--", program]
        subprocess.run(line, stdout=file, stderr=subprocess.DEVNULL, check=False, timeout=120)
    text = shown.read_text()
    assert text.startswith("before\n") and text.count("said") == 2


def test_launchers_work_through_links_and_not_alone(tmp_path):
    (tmp_path / "linked.sh").symlink_to(LAUNCH / "run_pod.sh")
    told = "--dry-run", f"--workdir={tmp_path}/run", "--", "true"
    run = {"capture_output": True, "text": True, "check": False, "timeout": 120}
    linked = subprocess.run([tmp_path / "linked.sh", *told], **run)
    assert linked.returncode == 0 and "true" in linked.stdout, linked.stderr
    shutil.copy(LAUNCH / "run_pod.sh", tmp_path / "alone.sh")
    alone = subprocess.run([tmp_path / "alone.sh", *told], **run)
    assert alone.returncode == 2 and "common.sh" in alone.stderr
    assert not (tmp_path / "run").exists()


def test_one_failure_ends_all_and_starts_all(tmp_path):
    """Process 1 fails at its first start; process 0 would wait for it, and for ever."""
    program = stub(
        tmp_path / "program",
        f'first="{tmp_path}/first"\n'
        'if [[ $TRAJVIT_PROCESS == 1 && ! -e $first ]]; then touch "$first"; exit 9; fi\n'
        'if [[ $TRAJVIT_PROCESS == 0 && ! -e $first ]]; then trap "exit 143" TERM\n'
        "  while true; do sleep 0.1; done; fi\n"
        'echo "second start"',
    )
    where = (f"--workdir={tmp_path}/run", "--local-processes=2", "--backoff=0")
    code, _, stderr = finish(pod(*where, "--", program))
    assert code == 0, stderr
    assert "process 1 ended with exit code 9" in stderr
    assert all("second start" in log(tmp_path / "run", number) for number in range(2))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)]
)
@pytest.mark.parametrize("where", ["--local-processes=2", "--hosts=me@gpu1,gpu2"])
def test_signals_reach_every_process_and_nothing_starts_again(tmp_path, where, number, code):
    """`ssh` is replaced: it runs the command here, in a session that gets no signals."""
    ssh = 'while [[ $1 == -o ]]; do shift 2; done; exec setsid --wait bash -c "$2"'
    stub(tmp_path / "bin" / "ssh", ssh)
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    process = pod(f"--workdir={tmp_path}/run", where, "--", sys.executable, "-c", WAITS, PATH=path)
    logs = [tmp_path / "run" / "logs" / f"process-{i}.log" for i in range(2)]
    wait_for(
        lambda: all(p.exists() and re.search(r":\d+ ready$", p.read_text(), re.M) for p in logs),
        process,
    )
    process.send_signal(number)
    got, _, stderr = finish(process)
    assert got == code, stderr
    for number_of in range(2):
        assert f"got {signal.Signals(number).name}" in log(tmp_path / "run", number_of)
    if "hosts" in where:
        assert "gpu1:12355 ready" in log(tmp_path / "run", 1)


# What a process is told of its place on its host.
PLACE = "echo ${JAX_LOCAL_DEVICE_IDS:-all} GPUs, ${TRAJVIT_PROCESSES_PER_HOST:-1} share cores"


def test_each_process_of_a_host_gets_its_share(tmp_path):
    """`ssh` is replaced: it runs the command here. Of each host a job may use four of its GPUs."""
    stub(tmp_path / "bin" / "ssh", 'while [[ $1 == -o ]]; do shift 2; done; exec bash -c "$2"')
    where = (f"--workdir={tmp_path}/run", "--hosts=a,b", "--processes-per-host=2", "--retries=0")
    env = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": "2,3,6,7"}
    code, _, stderr = finish(pod(*where, "--", "bash", "-c", PLACE, **env))
    assert code == 0, stderr
    for number, ids in enumerate(["0,1", "2,3", "0,1", "2,3"]):
        text = log(tmp_path / "run", number)
        assert f" {ids} GPUs, 2 share cores" in text
        assert re.search(
            rf"process {number} of 4 on .*, process {number % 2} of 2 .*, GPUs {ids} of 4:", text
        )


@pytest.mark.parametrize(
    ("per_host", "env", "told"),
    [
        (1, {"TRAJVIT_PROCESS": "5"}, "all GPUs, 1 share cores"),
        (4, {"TRAJVIT_PROCESS": "5"}, "2,3 GPUs, 4 share cores"),
        (8, {"TRAJVIT_PROCESS": "5"}, "5 GPUs, 8 share cores"),
        # SLURM binds its tasks to cores of their own.
        (4, {"SLURM_PROCID": "8", "SLURM_LOCALID": "3"}, "6,7 GPUs, 1 share cores"),
        (2, {"TRAJVIT_PROCESS": "5", "CUDA_VISIBLE_DEVICES": "1,3,-1,4"}, "1 GPUs, 2 share cores"),
        (2, {"TRAJVIT_PROCESS": "5", "CUDA_VISIBLE_DEVICES": ""}, "all GPUs, 2 share cores"),
    ],
)
def test_gpus_are_shared_out_as_the_driver_or_the_job_names_them(tmp_path, per_host, env, told):
    """The driver names eight, one of which is divided."""
    lines = [f"GPU {i}: NVIDIA H100 (UUID: GPU-{i})" for i in range(8)] + ["  MIG 1g.10gb Device 0"]
    stub(tmp_path / "bin" / "nvidia-smi", "printf '%s\\n' " + " ".join(f"'{x}'" for x in lines))
    assert host(tmp_path, per_host, env).returncode == 0
    number = int(env.get("TRAJVIT_PROCESS", env.get("SLURM_PROCID")))
    assert f" {told}\n" in log(tmp_path, number)


def test_processes_that_cannot_share_the_gpus_are_a_wrong_command(tmp_path):
    done = host(tmp_path, 3, {"TRAJVIT_PROCESS": "0", "CUDA_VISIBLE_DEVICES": "0,1,2,3"})
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "3 processes a host cannot share the 4 GPUs" in line and "--processes-per-host" in line


def host(tmp_path: Path, per_host: int, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    ours = (*ELSEWHERE, "CUDA_VISIBLE_DEVICES")
    plain = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    options = (f"--workdir={tmp_path}", f"--processes-per-host={per_host}")
    return subprocess.run(
        [LAUNCH / "run_host.sh", *options, "--", "bash", "-c", PLACE],
        env=plain | {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"} | env,
        capture_output=True,
        text=True,
        timeout=60,
    )


# Two tasks, as SLURM would number them, and what srun does with signals (its `_handle_signals`):
# at these three it kills the tasks, others it passes on.
SRUN = f"""#!{sys.executable}
import os, signal, subprocess, sys
command = [*sys.argv[1:]]
while command[0].startswith("--"):
    command.pop(0)
step = os.environ | {{"SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_STEP_NUM_TASKS": "2"}}
tasks = [subprocess.Popen(command, env=step | {{"SLURM_PROCID": str(i)}}) for i in range(2)]
def handle(number, frame):
    for task in tasks:
        task.send_signal(signal.SIGKILL if number in KILLING else number)
KILLING = (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)
for number in (*KILLING, signal.SIGUSR1, signal.SIGINT):
    signal.signal(number, handle)
sys.exit(max(abs(task.wait()) for task in tasks))
"""


@pytest.mark.parametrize(
    ("first", "reminder", "got", "code"),
    [
        (signal.SIGTERM, signal.SIGUSR1, "SIGUSR1", 75),
        (signal.SIGUSR1, signal.SIGTERM, "SIGUSR1", 75),
        (signal.SIGINT, signal.SIGTERM, "SIGINT", 130),
    ],
)
def test_under_slurm_no_signal_kills_before_the_save(tmp_path, first, reminder, got, code):
    """The same one twice would, so the reminder is not passed on as that."""
    srun = tmp_path / "bin" / "srun"
    srun.parent.mkdir()
    srun.write_text(SRUN, "utf-8")
    srun.chmod(0o755)
    env = {"PATH": f"{srun.parent}:{os.environ['PATH']}", "SLURM_JOB_ID": "5"}
    process = pod(f"--workdir={tmp_path}/run", "--", sys.executable, "-c", WAITS, **env)
    logs = [tmp_path / "run" / "logs" / f"process-{i}.log" for i in range(2)]
    wait_for(lambda: all(p.exists() and "slurm:1 ready" in p.read_text() for p in logs), process)
    process.send_signal(first)
    wait_for(lambda: all(f"got {got}" in path.read_text() for path in logs), process)
    process.send_signal(reminder)
    ended, _, stderr = finish(process)
    assert ended == code and "while stopping" not in stderr, stderr
    assert all(path.read_text().count(" got SIG") == 1 for path in logs)


def job(tmp_path: Path, *command: str) -> subprocess.Popen:
    """launch/slurm.sbatch as SLURM runs it; `scontrol` notes what it is asked for."""
    srun = tmp_path / "bin" / "srun"
    stub(tmp_path / "bin" / "scontrol", f'echo "$@" >>"{tmp_path}/asked"')
    srun.write_text(SRUN, "utf-8")
    srun.chmod(0o755)
    plain = {name: text for name, text in os.environ.items() if not name.startswith(ELSEWHERE)}
    path = f"{srun.parent}:{os.environ['PATH']}"
    return subprocess.Popen(
        ["bash", LAUNCH / "slurm.sbatch", f"--workdir={tmp_path}/run", "--retries=0", *command],
        cwd=ROOT,
        env=plain | {"PYTHON": sys.executable, "PATH": path, "SLURM_JOB_ID": "5"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_slurm_job_that_is_warned_saves_and_goes_back_into_the_queue(tmp_path, number):
    """The batch script alone gets the signal."""
    process = job(tmp_path, "--", sys.executable, "-c", WAITS)
    logs = [tmp_path / "run" / "logs" / f"process-{i}.log" for i in range(2)]
    wait_for(lambda: all(p.exists() and "slurm:1 ready" in p.read_text() for p in logs), process)
    process.send_signal(number)
    code, _, stderr = finish(process)
    assert code == 75, stderr
    assert all("got SIGUSR1" in path.read_text() for path in logs)
    assert (tmp_path / "asked").read_text() == "requeue 5\n"


@pytest.mark.parametrize("code", [0, 2, 9])
def test_a_slurm_job_that_is_done_or_failed_is_not_queued_again(tmp_path, code):
    got, _, stderr = finish(job(tmp_path, "--", "bash", "-c", f"exit {code}"))
    assert got == code, stderr
    assert not (tmp_path / "asked").exists()


def test_a_kubernetes_job_has_one_number_of_hosts_and_cores_for_its_gpus():
    text = (LAUNCH / "kubernetes.yaml").read_text("utf-8")
    service, jobs = yaml.safe_load_all(text)
    pod = jobs["spec"]["template"]["spec"]
    [container] = pod["containers"]
    env = {one["name"]: one["value"] for one in container["env"]}
    hosts = jobs["spec"]["parallelism"]
    assert jobs["spec"]["completions"] == hosts and env["TRAJVIT_PROCESSES"] == str(hosts)

    # The first pod's name, as the headless service gives it.
    name = jobs["metadata"]["name"]
    assert env["TRAJVIT_COORDINATOR"].startswith(f"{name}-0.{service['metadata']['name']}:")
    assert pod["subdomain"] == service["metadata"]["name"]

    resources = container["resources"]
    gpus, cores = resources["limits"]["nvidia.com/gpu"], resources["requests"]["cpu"]
    slurm = (LAUNCH / "slurm.sbatch").read_text("utf-8")
    assert f"--gpus-per-node={gpus}\n" in slurm and f"--cpus-per-task={cores}\n" in slurm
    assert Path(ROOT, *container["command"]).is_file()


def test_slurm_starts_one_task_a_host(tmp_path):
    """`srun` is replaced: two tasks, as SLURM would number them."""
    stub(
        tmp_path / "bin" / "srun",
        f'printf "%s\\n" "$@" >"{tmp_path}/arguments"\n'
        "while [[ $1 == --* ]]; do shift; done\n"
        "export SLURM_STEP_NODELIST='gpu[07-08]' SLURM_STEP_NUM_TASKS=2\n"
        'SLURM_PROCID=0 "$@" & SLURM_PROCID=1 "$@" & wait',
    )
    env = {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "SLURM_JOB_ID": "5",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "96",
    }
    program = (
        "import os\nfrom trajvit_jax.pod.cluster import from_environment\n"
        "print(from_environment(os.environ))\n"
    )
    where = (f"--workdir={tmp_path}/run", "--", sys.executable, "-c", program)
    code, _, stderr = finish(pod(*where, PYTHONPATH=str(ROOT), **env))
    assert code == 0, stderr
    asked = (tmp_path / "arguments").read_text().splitlines()
    assert {"--ntasks=2", "--ntasks-per-node=1", "--cpus-per-task=96"} <= set(asked)
    for number in range(2):
        assert f"coordinator='gpu07:61445', processes=2, process={number}" in log(
            tmp_path / "run", number
        )


def test_a_process_may_open_as_many_files_as_the_host_allows(tmp_path):
    host = [LAUNCH / "run_host.sh", f"--workdir={tmp_path}", "--", "bash", "-c"]
    line = [
        "bash",
        "-c",
        'ulimit -Sn 64; exec "$@"',
        "-",
        *host,
        "echo $(ulimit -Sn) $(ulimit -Hn)",
    ]
    assert subprocess.run(line, stdout=subprocess.DEVNULL, timeout=60).returncode == 0
    [limits] = re.findall(r"^\S+ \S+ (\w+ \w+)$", log(tmp_path), re.M)
    soft, hard = limits.split()
    assert soft == hard != "64"


def test_a_dry_run_prints_what_every_host_would_run_and_writes_nothing(tmp_path):
    arguments = ("--config=configs/demo.py:steps=3", "--config.data.batch=4", "--dry-run")
    where = (f"--workdir={tmp_path}/run", "--hosts=a,b", "--cpu-devices=2")
    code, stdout, stderr = finish(pod(*arguments, *where, NCCL_IB_HCA="mlx5"))
    assert code == 0, stderr
    first, second = stdout.splitlines()
    for number, line in enumerate((first, second)):
        assert line.startswith("ssh ") and f"TRAJVIT_PROCESS={number}" in line
        assert "TRAJVIT_COORDINATOR=a:12355" in line and "NCCL_IB_HCA=mlx5" in line
        assert "--config.data.batch=4" in line and "trajvit_jax.main" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("where", "env", "expected"),
    [
        (
            "--hosts=a,b",
            {},
            [("ssh .* a ", 0), ("ssh .* a ", 1), ("ssh .* b ", 2), ("ssh .* b ", 3)],
        ),
        ("--cpu-devices=3", {}, [("env .* --cpu-devices=3 ", 0), ("env .* --cpu-devices=3 ", 1)]),
        (
            "--port=7",
            {"TRAJVIT_PROCESSES": "3", "JOB_COMPLETION_INDEX": "2", "TRAJVIT_COORDINATOR": "p-0:7"},
            [("env TRAJVIT_COORDINATOR=p-0:7 TRAJVIT_PROCESSES=6 ", 4), ("env ", 5)],
        ),
    ],
    ids=["ssh", "here", "pods"],
)
def test_processes_of_a_host_are_numbered_one_after_the_other(where, env, expected):
    options = ("--workdir=/x", "--processes-per-host=2", "--dry-run", where)
    code, stdout, stderr = finish(pod(*options, "--", "program", **env))
    assert code == 0, stderr
    lines = stdout.splitlines()
    assert len(lines) == len(expected)
    for line, (start, number) in zip(lines, expected, strict=True):
        line = line.replace("\\ ", " ")
        assert re.match(start, line) and f" TRAJVIT_PROCESS={number} " in line
        assert " --processes-per-host=2 " in line


def test_slurm_starts_as_many_tasks_a_host_as_the_job_has():
    job = {"SLURM_JOB_ID": "5", "SLURM_JOB_NUM_NODES": "3", "SLURM_NTASKS_PER_NODE": "8"}
    for same in ([], ["--processes-per-host=8"]):
        code, stdout, stderr = finish(
            pod("--workdir=/x", "--dry-run", *same, "--", "program", **job)
        )
        assert code == 0, stderr
        assert stdout.startswith("srun --ntasks=24 --ntasks-per-node=8 --distribution=block ")
        assert " --processes-per-host=8 " in stdout
    code, _, stderr = finish(pod("--workdir=/x", "--processes-per-host=4", "--", "program", **job))
    assert code == 2 and "--processes-per-host=4" in stderr
    assert "name both to sbatch, --ntasks-per-node=4 --cpus-per-task=CORES/4" in stderr


@pytest.mark.parametrize("several", [[], ["--processes-per-host=2"]], ids=["one", "several"])
@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"JOB_COMPLETION_INDEX": "1"}, "TRAJVIT_PROCESSES must be the number of pods"),
        ({"TRAJVIT_PROCESS": "1"}, "TRAJVIT_PROCESSES must be the number of hosts"),
        ({"TRAJVIT_COORDINATOR": "a:1"}, "TRAJVIT_PROCESSES must be the number of hosts"),
        ({"TRAJVIT_PROCESSES": "0"}, "TRAJVIT_PROCESSES must be at least 1"),
        ({"TRAJVIT_PROCESSES": "2"}, "TRAJVIT_COORDINATOR must be host:port of the first of 2"),
        (
            {"TRAJVIT_PROCESSES": "2", "TRAJVIT_COORDINATOR": "a:0"},
            "TRAJVIT_COORDINATOR must be host:port of the first of 2 hosts, not 'a:0'",
        ),
        (
            {"TRAJVIT_PROCESSES": "2", "TRAJVIT_COORDINATOR": "a:1"},
            "TRAJVIT_PROCESS must be the number of this host, 0 to 1",
        ),
        (
            {"TRAJVIT_PROCESSES": "4", "TRAJVIT_PROCESS": "4", "TRAJVIT_COORDINATOR": "a:1"},
            "host 4 of 4: TRAJVIT_PROCESS counts from 0",
        ),
    ],
)
def test_hosts_that_are_not_numbered_start_no_processes(env, said, several):
    code, stdout, stderr = finish(
        pod("--workdir=/x", *several, "--dry-run", "--", "program", **env)
    )
    assert code == 2 and said in stderr and not stdout


def test_tasks_of_srun_start_no_processes_of_their_own():
    env = {"SLURM_JOB_ID": "5", "SLURM_STEP_NUM_TASKS": "4"}
    code, _, stderr = finish(pod("--workdir=/x", "--processes-per-host=2", "--", "program", **env))
    assert code == 2 and "srun started this 4 times" in stderr


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("configs/demos.py", "config file 'configs/demos.py' does not exist; did you mean"),
        ("configs/demo.py:stepz=3", "unknown config argument 'stepz': did you mean 'steps'"),
    ],
)
def test_a_dry_run_checks_the_config(config, said, tmp_path):
    code, stdout, stderr = finish(pod(f"--config={config}", f"--workdir={tmp_path}", "--dry-run"))
    assert code == 2 and said in stderr and "Traceback" not in stderr
    assert not stdout


def test_values_may_stand_apart():
    options = ("--workdir", "/x", "--hosts", "a,b", "--processes_per_host", "2", "--dry-run")
    code, stdout, _ = finish(pod(*options, "--", "program", "--its", "own"))
    assert code == 0
    assert len(stdout.splitlines()) == 4 == stdout.count(r"--workdir=/x\ --processes-per-host=2")
    assert stdout.count(r"--\ program\ --its\ own") == 4


def test_options_may_be_written_as_those_of_python(tmp_path):
    options = ("--local_processes=2", "--cpu_devices=3", "--dry_run", f"--workdir={tmp_path}/a_b")
    code, stdout, stderr = finish(pod(*options, "--", "a_command", "--its_own=x_y"))
    assert code == 0, stderr
    first, second = stdout.splitlines()
    assert "TRAJVIT_PROCESS=1" in second and "--cpu-devices=3" in second
    assert f"--workdir={tmp_path}/a_b" in first and first.endswith("a_command --its_own=x_y ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--workdir=DIR is missing"),
        (["--workdir=x"], "--config=CONFIG is missing"),
        (["--workdir=x", "--cofnig=y"], "unknown option '--cofnig=y'"),
        (["--workdir", "--dry-run", "--config=x"], "--workdir has no value"),
        (["--workdir=x", "--config.a_b", "1"], "'--config.a_b' has no value: --config.NAME=VALUE"),
        (["--workdir", "x"], "--config=CONFIG is missing"),
        (["--workdir"], "--workdir has no value"),
        (["--workdir=x", "--retries=many"], "--retries must be a whole number, not 'many'"),
        (["--workdir=x", "--retries=010"], "--retries must be a whole number, not '010'"),
        (["--workdir=x", "--hosts="], "names a host without a name"),
        (["--workdir=x", "--hosts=a,,b"], "names a host without a name"),
        (["--workdir=x", "--hosts=a,b,"], "names a host without a name"),
        (["--workdir=x", "--hosts=a, b"], "' b' is no name of a host"),
        (["--workdir=x", "--hosts=a,-oProxyCommand=b"], "'-oProxyCommand=b' is no name of a host"),
        (["--workdir=x", "--hosts=a,b,me@a"], "names a twice; several processes a host: "),
        (["--workdir=x", "--port=0"], "--port must be 1 to 65535, not '0'"),
        (["--workdir=x", "--port=99999"], "--port must be 1 to 65535, not '99999'"),
        (["--workdir=x", "--hosts=a", "--local-processes=2"], "exclude each other"),
        (["--workdir=x", "--processes-per-host=2", "--local-processes=2"], "exclude each other"),
        (["--workdir=x", "--processes-per-host=0"], "--processes-per-host must be at least 1"),
    ],
)
def test_what_is_wrong_with_the_command_is_one_line(arguments, said):
    code, _, stderr = finish(pod(*arguments))
    assert code == 2
    [line] = stderr.splitlines()
    assert said in line


def test_help_teaches():
    code, stdout, _ = finish(pod("--help"))
    assert code == 0
    for word in ("Examples:", "--hosts=", "launch/slurm.sbatch --workdir", "Exit codes", "75 "):
        assert word in stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_clean(script):
    subprocess.run(["bash", "-n", script], check=True)
    checker = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if checker:
        done = subprocess.run([checker, "-x", script], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
