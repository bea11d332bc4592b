#!/usr/bin/env bash
# Trains on all hosts of a pod, and starts again what was preempted or failed. See --help.
set -uo pipefail
set -m # a Ctrl-C comes to this script alone, which passes it on
# shellcheck source-path=SCRIPTDIR source=common.sh
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
source "$here/common.sh" || exit 2

usage() {
  cat <<'HELP'
Trains on every host of a pod until the run is done: one process a host, or several, each with its
log.

  launch/run_pod.sh --config=CONFIG --workdir=DIR [where] [options]

Where (the code and DIR at the same paths on every host):
  (nothing)             under SLURM all hosts of the job, in a Kubernetes Job this pod,
                        else this machine
  --hosts=a,b,c         these hosts, through ssh; the first one coordinates
  --local-processes=N   N processes on this machine alone, to try things out

Options:
  --processes-per-host=N
                        N processes on every host (1), numbered host * N + k: each reads its part
                        of the batch with its share of the host's cores, and drives its share of
                        the GPUs, whose number N must divide. For runs that wait for data. Under
                        SLURM: sbatch --ntasks-per-node=N
  --config.NAME=VALUE   changes a setting of the config, as for trajvit_jax.main
  --cpu-devices=M       M virtual CPU devices in every process, instead of accelerators
  --port=PORT           where the first process of --hosts is found (12355)
  --interface=NAME      network that NCCL uses between hosts, as `ip addr` names it
  --retries=N           starts after failures, before giving up (5); an attempt that lasted an
                        hour starts the count anew
  --backoff=SECONDS     before the first of them (10); it doubles, up to five minutes
  --dry-run             checks the config, and the evaluation's records if their folder is here, and
                        prints what would be started on each host
  -- COMMAND...         runs COMMAND in place of python -m trajvit_jax.main --config... --workdir...

Examples:
  launch/run_pod.sh --workdir=/runs/panda4m --hosts=gpu1,gpu2,gpu3,gpu4 --processes-per-host=8 \
      --config=configs/panda4m.py:records=/data/panda4m,evaluation=/data/msrvtt
  launch/run_pod.sh --config=configs/demo.py --workdir=runs/pod --local-processes=2 --cpu-devices=4
  sbatch --ntasks-per-node=8 --cpus-per-task=12 launch/slurm.sbatch --workdir=/runs/panda4m \
      --config=configs/panda4m.py:records=/data/panda4m,evaluation=/data/msrvtt

Logs: DIR/logs/process-N.log; that of process 0 is shown, too.

Exit codes, of the training and of this script:
  0    done
  75   preempted, everything is saved: started again at once, unless this script itself was told
       to end (SIGTERM, SIGUSR1; under SLURM every process gets SIGUSR1): then it ends with 75, and
       whoever told it starts it again
  130  Ctrl-C: saved; nothing is started again
  2    a wrong command or config: a restart would not help
  else a failure: all processes are ended and started again from the last checkpoint
HELP
}

# What numbers the hosts itself (section 5 of the README) says so in the environment: here they are
# checked, and in `host`, of so many `processes`, found through `coordinator`.
read_host_number() {
  [[ -n ${TRAJVIT_PROCESSES:-} || -z ${JOB_COMPLETION_INDEX:-} ]] ||
    die "TRAJVIT_PROCESSES must be the number of pods, as in launch/kubernetes.yaml"
  [[ -n ${TRAJVIT_PROCESSES:-} || -z ${TRAJVIT_PROCESS:-}${TRAJVIT_COORDINATOR:-} ]] ||
    die "TRAJVIT_PROCESSES must be the number of hosts"
  processes=${TRAJVIT_PROCESSES:-1} && whole TRAJVIT_PROCESSES "$processes"
  ((processes > 0)) || die "TRAJVIT_PROCESSES must be at least 1"
  host=0
  ((processes > 1)) || return 0
  coordinator=${TRAJVIT_COORDINATOR:-}
  if [[ $coordinator != ?*:* ]] || ! a_port "${coordinator##*:}"; then
    die "TRAJVIT_COORDINATOR must be host:port of the first of $processes hosts, not '$coordinator'"
  fi
  host=${TRAJVIT_PROCESS:-${JOB_COMPLETION_INDEX:-}}
  [[ -n $host ]] || die "TRAJVIT_PROCESS must be the number of this host, 0 to $((processes - 1))"
  whole TRAJVIT_PROCESS "$host"
  ((host < processes)) || die "host $host of $processes: TRAJVIT_PROCESS counts from 0"
}

root=$(dirname "$here")
ssh+=(-o ServerAliveInterval=30)
workdir='' hosts='' local_processes='' per_host='' cpu_devices='' port='' interface='' dry_run=''
retries=5 backoff=10 settings=() command=() check=()
read_options "--config --workdir --hosts --local-processes --processes-per-host --cpu-devices --port \
  --interface --retries --backoff" "$@"
set -- "${options[@]}"
while (($#)); do
  case $1 in
    -h | --help) usage && exit 0 ;;
    --config=* | --config.*=*) settings+=("$1") ;;
    --workdir=*) workdir=${1#*=} ;;
    --hosts=*) hosts=${1#*=} && check_hosts "$hosts" "several processes a host: --processes-per-host=N" ;;
    --local-processes=*) local_processes=${1#*=} && whole "${1%%=*}" "$local_processes" ;;
    --processes-per-host=*) per_host=${1#*=} && whole "${1%%=*}" "$per_host" ;;
    --cpu-devices=*) cpu_devices=${1#*=} && whole "${1%%=*}" "$cpu_devices" ;;
    --port=*) port=${1#*=} && check_port "$port" ;;
    --interface=*) interface=${1#*=} ;;
    --retries=*) retries=${1#*=} && whole "${1%%=*}" "$retries" ;;
    --backoff=*) backoff=${1#*=} && whole "${1%%=*}" "$backoff" ;;
    --dry-run) dry_run=yes ;;
    --) shift && command=("$@") && break ;;
    --config.*) die "'$1' has no value: --config.NAME=VALUE" ;;
    *) die "unknown option '$1'; see launch/run_pod.sh --help" ;;
  esac
  shift
done
[[ -n $workdir ]] || die "--workdir=DIR is missing; see launch/run_pod.sh --help"
[[ -z $hosts || -z $local_processes ]] || die "--hosts and --local-processes exclude each other"
[[ -z $per_host || -z $local_processes ]] ||
  die "--processes-per-host and --local-processes exclude each other"
[[ -z $local_processes ]] || ((local_processes > 0)) || die "--local-processes must be at least 1"
[[ -z $per_host ]] || ((per_host > 0)) || die "--processes-per-host must be at least 1"
[[ $workdir == /* ]] || workdir=$PWD/$workdir
if ((${#command[@]} == 0)); then
  ((${#settings[@]})) || die "--config=CONFIG is missing; see launch/run_pod.sh --help"
  python=$(command -v "${PYTHON:-python}") || die "no python; activate the environment, or set PYTHON"
  command=("$python" -m trajvit_jax.main "${settings[@]}" "--workdir=$workdir")
  check=("${command[@]}" --only_check_args)
fi

# Who starts the processes: ssh, srun, or this script. `host` has only this machine's process, or
# one of those that srun started. `first` is the number of the first one that is started here.
first=0 processes=''
if [[ -n $hosts ]]; then
  mode=ssh
  per_host=${per_host:-1}
  IFS=, read -r -a names <<<"$hosts"
  processes=$((${#names[@]} * per_host))
  coordinator=${names[0]#*@}:${port:-12355}
elif [[ -n $local_processes ]]; then
  mode=local
  per_host=$local_processes
  processes=$local_processes
  coordinator=127.0.0.1:${port:-$((20000 + RANDOM))}
elif [[ -n ${SLURM_JOB_ID:-} && ${SLURM_STEP_NUM_TASKS:-1} == 1 && -z ${TRAJVIT_PROCESSES:-} ]]; then
  mode=slurm
  tasks=${SLURM_NTASKS_PER_NODE:-1}
  # srun cannot take the cores that sbatch gave to one task apart.
  ((${per_host:-$tasks} == tasks)) ||
    die "--processes-per-host=$per_host, but the job has --ntasks-per-node=$tasks: name both to \
sbatch, --ntasks-per-node=$per_host --cpus-per-task=CORES/$per_host"
  per_host=$tasks
elif ((${per_host:-1} > 1)); then
  mode=local # what numbers the processes elsewhere (section 5 of the README) numbers the hosts here
  ((${SLURM_STEP_NUM_TASKS:-1} == 1)) || [[ -n ${TRAJVIT_PROCESSES:-} ]] ||
    die "srun started this $SLURM_STEP_NUM_TASKS times: with --processes-per-host, leave srun to it"
  coordinator=127.0.0.1:${port:-$((20000 + RANDOM))}
  read_host_number
  first=$((host * per_host)) processes=$((processes * per_host))
else
  mode=host
  read_host_number
  per_host=1
fi

host_command=("$root/launch/run_host.sh" "--workdir=$workdir" "--processes-per-host=$per_host")
[[ -z $cpu_devices ]] || host_command+=("--cpu-devices=$cpu_devices")
[[ -z $interface ]] || host_command+=("--interface=$interface")

# What the process $1 of those that are started here is started with, in `line`.
compose() {
  local name
  local place=("TRAJVIT_COORDINATOR=${coordinator:-}" "TRAJVIT_PROCESSES=$processes"
    "TRAJVIT_PROCESS=$((first + $1))")
  case $mode in
    local) line=(env "${place[@]}" "${host_command[@]}" -- "${command[@]}") ;;
    ssh)
      while read -r name; do place+=("$name=${!name}"); done \
        < <(compgen -e | grep -E '^(NCCL|XLA|JAX|CUDA|TF_CPP)_')
      printf -v remote '%q ' env "${place[@]}" "${host_command[@]}" --signals-from-stdin -- "${command[@]}"
      line=("${ssh[@]}" "${names[$1 / per_host]}"
        "cd $(printf %q "$root") && exec $remote")
      ;;
    slurm)
      # --wait: when one task has ended, the others have two minutes, and are killed then.
      # --distribution: neighbours in number lie on one host.
      line=(srun "--ntasks=$((${SLURM_JOB_NUM_NODES:-1} * per_host))" "--ntasks-per-node=$per_host"
        --distribution=block --disable-status --kill-on-bad-exit=0 --wait=120
        ${SLURM_CPUS_PER_TASK:+"--cpus-per-task=$SLURM_CPUS_PER_TASK"}
        "${host_command[@]}" -- "${command[@]}")
      ;;
    host) line=("${host_command[@]}" -- "${command[@]}") ;;
  esac
}

# Processes that this script starts itself; srun starts those of a SLURM job.
case $mode in ssh) started=$processes ;; local) started=$per_host ;; *) started=1 ;; esac

if [[ -n $dry_run ]]; then
  # A config that is not there, has no such argument, or evaluates on records that do not exist, shows
  # here and not on the hosts.
  ((${#check[@]} == 0)) || (cd "$root" && "${check[@]}") || exit 2
  ((per_host == 1)) || [[ -n $cpu_devices ]] ||
    say "$per_host processes a host: each host checks that they can share its GPUs when it starts"
  for ((i = 0; i < started; i++)); do
    compose "$i"
    printf '%q ' "${line[@]}"
    echo
  done
  exit 0
fi

cd "$root" || exit
pids=() pipes=() asked='' scratch=''
trap '[[ -z $scratch ]] || rm -rf "$scratch"' EXIT

# What process 0 says is shown. Opening /dev/stdout for it would empty the file that it may be.
hush() { (($1 == 0)) || exec >/dev/null; }

start() {
  local i fd
  pids=() pipes=()
  for ((i = 0; i < started; i++)); do
    compose "$i"
    if [[ $mode == ssh ]]; then # ssh passes on no signals: their names go through its stdin
      [[ -n $scratch ]] || scratch=$(mktemp -d)
      rm -f "$scratch/$i" && mkfifo "$scratch/$i" && exec {fd}<>"$scratch/$i"
      pipes[i]=$fd
      (
        for fd in "${pipes[@]}"; do exec {fd}>&-; done
        hush "$i"
        exec "${line[@]}" <"$scratch/$i"
      ) &
    else
      (
        hush "$i"
        exec "${line[@]}" </dev/null
      ) &
    fi
    pids[i]=$!
  done
}

send() { # signal $1 to all processes that still run
  local i name=$1
  # At SIGTERM srun kills its tasks (SIGKILL); SIGUSR1 it passes on, and both mean the same to them.
  [[ $mode != slurm || $name != TERM ]] || name=USR1
  for i in "${!pids[@]}"; do
    if [[ -n ${pipes[i]:-} ]]; then
      echo "$name" >&"${pipes[i]}"
    else
      kill -s "$name" "${pids[i]}" 2>/dev/null
    fi
  done
}

close_pipes() {
  local fd
  for fd in "${pipes[@]}"; do exec {fd}>&-; done
  pipes=()
}

# Runs all processes once. The first that fails decides on `code`; the others then have time to
# notice it themselves, or, when all are being stopped, to save.
attempt() {
  local i ended urgency=0 deadline=0
  code=0
  start
  [[ -z $asked ]] || send "$asked"
  while ((${#pids[@]})); do
    for i in "${!pids[@]}"; do
      kill -0 "${pids[i]}" 2>/dev/null && continue
      wait "${pids[i]}"
      ended=$?
      unset "pids[i]"
      if ((ended && !code)); then
        code=$ended
        ((started == 1)) || say "process $((first + i)) ended with exit code $code"
        deadline=$((SECONDS + ((code == 75 || code == 130) ? 300 : 5)))
      fi
    done
    if ((deadline && SECONDS >= deadline && ${#pids[@]})); then
      if ((urgency++)); then send QUIT; else send TERM; fi
      deadline=$((SECONDS + 20))
    fi
    sleep 0.1
  done
  close_pipes
}

ask() {
  # srun's tasks get both as SIGUSR1, which ends them at once when it comes again: the scheduler's
  # reminder stays here.
  [[ $mode != slurm || -z $asked || $1 == INT || $1 == "$asked" ]] || return 0
  [[ -n $asked ]] || say "SIG$1: the running step is finished and saved first"
  asked=$1
  send "$1"
}
trap 'ask TERM' TERM HUP
trap 'ask USR1' USR1
trap 'ask INT' INT

stopped() { # ends as asked, so that a scheduler knows whether to start again
  [[ $asked == INT ]] && exit 130
  exit 75
}

failures=0
while true; do
  [[ -z $asked ]] || stopped
  say "starting; logs are in $workdir/logs"
  SECONDS=0
  attempt
  ((code)) || { say "done" && exit 0; }
  if [[ -n $asked ]]; then
    ((code != 2)) || exit 2
    ((code == 75 || code == 130)) ||
      say "exit code $code while stopping: the next start goes on from the last checkpoint"
    stopped
  fi
  case $code in
    75) say "preempted and saved: starting again" && sleep 1 && continue ;;
    130) exit 130 ;;
    2) say "a wrong command or config (exit code 2): not started again" && exit 2 ;;
  esac
  ((SECONDS < 3600)) || failures=0
  ((++failures <= retries)) || { say "failed $failures times in a row (exit code $code): giving up" && exit "$code"; }
  pause=$((failures > 5 ? 300 : backoff << (failures - 1)))
  ((pause <= 300)) || pause=300
  say "failed with exit code $code ($failures of $retries): starting again in $pause s"
  for ((until = SECONDS + pause; SECONDS < until; )); do
    [[ -z $asked ]] || stopped
    sleep 0.1
  done
done
