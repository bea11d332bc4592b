#!/usr/bin/env bash
# One process of a run on this host: its environment, its log, its signals.
#
#   launch/run_host.sh --workdir=DIR [--processes-per-host=N] [--cpu-devices=M] [--interface=NAME]
#       [--signals-from-stdin] -- COMMAND...
#
# launch/run_pod.sh starts it on every host, N times. It ends with the exit code of COMMAND, or with
# 2 where N processes cannot share the GPUs.
# SIGTERM, SIGUSR1 and SIGINT go on to COMMAND; SIGQUIT kills it with all that it started.
set -uo pipefail
set -m # COMMAND gets a process group: nothing that it started outlives it

workdir='' per_host=1 cpu_devices='' interface='' signals_from_stdin=''
while (($#)); do
  case $1 in
    --workdir=*) workdir=${1#*=} ;;
    --processes-per-host=*) per_host=${1#*=} ;;
    --cpu-devices=*) cpu_devices=${1#*=} ;;
    --interface=*) interface=${1#*=} ;;
    --signals-from-stdin) signals_from_stdin=yes ;;
    --) shift && break ;;
    *) echo "run_host.sh: unknown option $1" >&2 && exit 2 ;;
  esac
  shift
done
number=${TRAJVIT_PROCESS:-${JOB_COMPLETION_INDEX:-${SLURM_PROCID:-0}}}
log=$workdir/logs/process-$number.log

# A flag that the user has set already stays as it is. XLA ends a program at a flag it does not
# know; these are known to jaxlib 0.10 and 0.11.
xla_flag() {
  [[ " ${XLA_FLAGS:-}" == *" ${1%%=*}="* ]] || export XLA_FLAGS="${XLA_FLAGS:+$XLA_FLAGS }$1"
}

environment() {
  # Shards of records, pipes of loader workers, connections of NCCL: the usual 1,024 files are few.
  ulimit -Sn "$(ulimit -Hn)"
  # Lines reach the log when they are written, not when a buffer is full.
  export PYTHONUNBUFFERED=1
  # A crash inside a library leaves the Python lines that led there.
  export PYTHONFAULTHANDLER=1
  # Of XLA's own messages only errors: it warns of much that is none of the user's business.
  export TF_CPP_MIN_LOG_LEVEL=${TF_CPP_MIN_LOG_LEVEL:-2}
  if [[ -n $cpu_devices ]]; then
    export JAX_PLATFORMS=cpu
    xla_flag "--xla_force_host_platform_device_count=$cpu_devices"
  elif [[ -e /dev/nvidiactl ]]; then
    gpu_environment
  fi
  ((per_host == 1)) || share_host
}

# This process is one of several on its host: which of its cores and GPUs are its own.
share_host() {
  # SLURM numbers the tasks of a host itself, and binds each to its cores.
  local place=${SLURM_LOCALID:-0}
  if [[ -n ${TRAJVIT_PROCESS:-} ]]; then
    place=$((TRAJVIT_PROCESS % per_host))
    export TRAJVIT_PROCESSES_PER_HOST=$per_host
  fi
  [[ -z $cpu_devices ]] || return 0
  local gpus each
  gpus=$(count_gpus)
  ((gpus)) || return 0 # CPUs: one device a process
  each=$((gpus / per_host))
  if ((each * per_host != gpus)); then
    echo "run_host.sh: $per_host processes a host cannot share the $gpus GPUs of $(hostname): \
--processes-per-host (under SLURM --ntasks-per-node) must divide them" >&2
    exit 2
  fi
  # jax.distributed.initialize reads it: JAX uses these, and NCCL still sees the whole host. With
  # CUDA_VISIBLE_DEVICES it would see these alone, and the way to the others through NVLink would
  # rest on CUDA's access to devices it does not see (10.1 and later; not where a container or SLURM's
  # --gpus-per-task hides them: github.com/NVIDIA/nccl/issues/324). Where that variable is set for the
  # whole host, the numbers count what it names.
  local ids
  ids=$(seq -s, "$((place * each))" "$((place * each + each - 1))")
  export JAX_LOCAL_DEVICE_IDS=$ids
  share=", process $place of $per_host on this host, GPUs $ids of $gpus"
}

count_gpus() { # that CUDA sees: those it is told to, else those of the driver, without MIG's parts
  if [[ -n ${CUDA_VISIBLE_DEVICES+set} ]]; then
    tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | sed '/^ *-1/,$d' | grep -c '[^ ]'
  elif command -v nvidia-smi >/dev/null; then
    nvidia-smi -L | grep -c '^GPU '
  else # a container without the driver's tools
    compgen -G '/dev/nvidia[0-9]*' | wc -l
  fi
}

gpu_environment() {
  # Gathering and reducing run beside computing; without it each waits for the other.
  xla_flag --xla_gpu_enable_latency_hiding_scheduler=true
  # A collective that one GPU never enters ends the process after 20 minutes instead of hanging
  # for good; the run then starts again from its last checkpoint.
  xla_flag --xla_gpu_nccl_termination_timeout_seconds=1200
  # JAX takes 75 % of the memory of each of its GPUs; the rest is only needed by NCCL, cuDNN and the
  # driver. The variable has an old and a new name, and JAX ends at both.
  [[ -n ${XLA_CLIENT_MEM_FRACTION:-}${XLA_PYTHON_CLIENT_MEM_FRACTION:-} ]] ||
    export XLA_PYTHON_CLIENT_MEM_FRACTION=0.92
  # A checkpoint goes through pinned memory of the host, all of it at once, and XLA has 64 GB of that
  # for a process: an 8B model and its moments are 96. It is taken as it is needed. Who says
  # anything of it has the last word; so should jobs that may use a part of the host's memory alone.
  local pinned=0
  { read -r _ pinned _ </proc/meminfo; } 2>/dev/null || : # the first line: all of it, in kB
  pinned=$((pinned / 2 ** 21 / per_host)) # half of it, in GB
  ((pinned <= 64)) ||
    [[ -n ${XLA_PJRT_GPU_HOST_MEMORY_LIMIT_GB:-}${XLA_PJRT_GPU_HOST_MEMORY_PREALLOCATE:-} ]] ||
    export XLA_PJRT_GPU_HOST_MEMORY_LIMIT_GB=$pinned
  # A restart loads the compiled steps instead of compiling for minutes, and the many small programs
  # of checksums, which JAX by itself does not keep; process 0 writes them for all.
  export JAX_COMPILATION_CACHE_DIR=${JAX_COMPILATION_CACHE_DIR:-$workdir/compiled}
  export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=${JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS:-0}
  # NCCL says why it failed, and nothing else.
  export NCCL_DEBUG=${NCCL_DEBUG:-WARN}
  # Hosts with several networks: NCCL may pick one that does not lead to the others.
  [[ -z $interface ]] || export NCCL_SOCKET_IFNAME=$interface
}

# Every line with its time, to the log and to our stdout; a progress bar's states become lines.
stamp() {
  local line
  stdbuf -oL tr '\r' '\n' | while IFS= read -r line || [[ -n $line ]]; do
    [[ -n $line ]] || continue
    printf -v line '%(%F %T)T %s' -1 "$line"
    printf '%s\n' "$line" >>"$log"
    printf '%s\n' "$line" 2>/dev/null
  done
}

child='' signalled=''
# shellcheck disable=SC2329  # traps call these two
forward() {
  signalled=yes
  [[ -z $child ]] || kill -s "$1" "$child" 2>/dev/null
}
# shellcheck disable=SC2329
kill_all() {
  signalled=yes
  [[ -z $child ]] || kill -KILL -- "-$child" 2>/dev/null
}

mkdir -p "$workdir/logs" || exit
share=''
environment
exec {out}> >(trap '' INT TERM USR1 QUIT HUP PIPE && stamp)
stamper=$!
trap 'forward TERM' TERM HUP
trap 'forward USR1' USR1
trap 'forward INT' INT
trap 'kill_all' QUIT
echo "==== process $number of ${TRAJVIT_PROCESSES:-${SLURM_STEP_NUM_TASKS:-1}} on $(hostname)$share: $*" >&"$out"
"$@" </dev/null >&"$out" 2>&1 &
child=$!

if [[ -n $signals_from_stdin ]]; then # over ssh: names of signals; its end means SIGTERM
  main=$$
  { while read -r name; do kill -s "$name" "$main"; done; kill -TERM "$main"; } <&0 >/dev/null 2>&1 &
  reader=$!
fi

code=0
while true; do
  signalled=''
  wait "$child"
  now=$?
  ((now == 127)) || code=$now # 127: its end was seen while a signal came
  [[ -n $signalled ]] || break
done
[[ -z ${reader:-} ]] || kill -KILL -- "-$reader" 2>/dev/null
kill -KILL -- "-$child" 2>/dev/null # what it started and left
echo "==== exit code $code" >&"$out"
exec {out}>&-
wait "$stamper"
exit "$code"
