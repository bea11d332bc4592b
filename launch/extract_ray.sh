#!/usr/bin/env bash
# Extracts trajectories on many machines: a Ray cluster for as long as it is needed. See --help.
set -uo pipefail
set -m # a Ctrl-C comes to this script alone, which passes it on
# shellcheck source-path=SCRIPTDIR source=common.sh
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
source "$here/common.sh" || exit 2

usage() {
  cat <<'HELP'
Runs python -m tokenization.extract --engine=ray on a cluster of machines.

  launch/extract_ray.sh [where] [options] -- --input=MANIFEST --output=DIR [more of extract]

Where (code, environment and videos at the same paths on every machine; DIR only here):
  (nothing)             this machine alone
  --hosts=a,b,c         this machine and these hosts, through ssh; hosts that go away, as spot
                        instances do, are tried again every 30 s, for as long as there is work
  --address=HOST:PORT   a Ray cluster that runs already, and stays; `auto` on one of its machines

Options:
  --not-here            no video is worked on by this machine, which writes the records
  --ip=ADDRESS          of this machine, as the hosts reach it (the first of hostname -I)
  --port=PORT           of Ray on this machine (6379)
  --logs=DIR            logs, one a machine (DIR/logs of --output)
  --retries=N           starts of the extraction after it was killed, before giving up (5)
  --module=NAME         another command with the same flags, as tokenization.import_official
  --dry-run             checks --input and --config, and prints what would be started, and where

Examples:
  launch/extract_ray.sh -- --input=clips.jsonl --output=/data/records
  launch/extract_ray.sh --hosts=gpu1,gpu2,gpu3 -- --input=/data/panda/train.jsonl \
      --output=/data/records --config=configs/tokenization/classical.py --time_limit=600
  launch/extract_ray.sh --address=10.0.0.1:6379 -- --input=/data/train.jsonl --output=/data/records

Where to look:
  DIR/quarantine.jsonl  videos without a record, each with the reason
  DIR/stats.md          what there is
  DIR/logs/extract.log  which worker died of which video; ray-HOST.log: Ray on that host

Exit codes, of the extraction and of this script: 0 done; 1 an error, or more than --max_bad of the
videos could not be read; 2 asked wrong, and the same command fails again; 130 Ctrl-C; 75 SIGTERM.
What is finished is kept: the same command goes on.
HELP
}

root=$(dirname "$here")
ssh+=(-o ServerAliveInterval=15 -o ServerAliveCountMax=4)
hosts='' address='' not_here='' ip='' port=6379 logs='' retries=5 module=tokenization.extract
dry_run='' arguments=()
read_options "--hosts --address --ip --port --logs --retries --module" "$@"
set -- "${options[@]}"
while (($#)); do
  case $1 in
    -h | --help) usage && exit 0 ;;
    --hosts=*) hosts=${1#*=} && check_hosts "$hosts" "name each host once" ;;
    --address=*) address=${1#*=} ;;
    --not-here) not_here=yes ;;
    --ip=*) ip=${1#*=} ;;
    --port=*) port=${1#*=} && check_port "$port" ;;
    --logs=*) logs=${1#*=} ;;
    --retries=*) retries=${1#*=} && whole "${1%%=*}" "$retries" ;;
    --module=*) module=${1#*=} ;;
    --dry-run) dry_run=yes ;;
    --) shift && arguments=("$@") && break ;;
    *) die "unknown option '$1' (flags of the extraction stand behind --); see launch/extract_ray.sh --help" ;;
  esac
  shift
done
((${#arguments[@]})) || die "-- --input=... --output=... is missing; see launch/extract_ray.sh --help"
output='' input='' config=''
for ((i = 0; i < ${#arguments[@]}; i++)); do
  argument=${arguments[i]}
  case $argument in
    --output | --input | --config | --engine | --address) argument+="=${arguments[i + 1]:-}" ;;
  esac
  case $argument in
    --output=*) output=${argument#*=} ;;
    --input=*) input=${argument#*=} ;;
    --config=*) config=${argument#*=} ;;
    --engine=* | --address=*) die "$argument is this script's own business" ;;
  esac
done
[[ -n $output ]] || die "--output=DIR is missing behind --"
[[ -z $hosts || -z $address ]] || die "--hosts and --address exclude each other"
[[ -z $not_here || -n $hosts ]] || die "--not-here needs --hosts, which do the work then"
logs=${logs:-$output/logs}
python=$(command -v "${PYTHON:-python}") || die "no python; activate the environment, or set PYTHON"
ray=$(dirname "$python")/ray
[[ -x $ray ]] || ray=$(command -v ray) || die "no ray beside $python; install it with make ray"

# Ray reports what it is used for to its makers unless told not to.
export RAY_USAGE_STATS_ENABLED=${RAY_USAGE_STATS_ENABLED:-0}
# Nor does it tell here, on a cluster without an autoscaler, that one could help.
export RAY_SCHEDULER_EVENTS=${RAY_SCHEDULER_EVENTS:-0}
names=() head=()
if [[ -n $hosts ]]; then
  IFS=, read -r -a names <<<"$hosts"
  [[ -n $ip ]] || read -r ip _ < <(hostname -I)
  address=$ip:$port
  # Who has not got this word cannot use the cluster; hosts get it through ssh.
  RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
  export RAY_AUTH_TOKEN RAY_AUTH_MODE=token
  head=("$ray" start --head --block "--node-ip-address=$ip" "--port=$port" --include-dashboard=false
    --disable-usage-stats ${not_here:+--num-cpus=0 --num-gpus=0})
fi
command=("$python" -m "$module" "${arguments[@]}" --engine=ray ${address:+"--address=$address"})

# What host $1 is started with, in `line`. It reads the word from ssh's stdin, and ends with it.
compose() {
  local start inner
  printf -v start '%q ' env RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token \
    "$ray" start --block "--address=$address"
  # shellcheck disable=SC2016  # the other shell expands these
  printf -v inner '%s' 'read -r RAY_AUTH_TOKEN <&3; export RAY_AUTH_TOKEN; ' "$start" '3<&- & ray=$!; ' \
    '{ cat >/dev/null; kill -TERM "$ray"; } <&3 3<&- & wait "$ray"'
  line=("${ssh[@]}" "$1"
    "cd $(printf %q "$root") && exec bash -c $(printf %q "$inner") 3<&0")
}

# Checked here, before machines are started and folders made: patterns and manifests are looked into
# by the extraction.
[[ -z $config || -f ${config%%:*} ]] || die "--config=$config: there is no such file"
[[ -z $input || $input == *[*?[]* || -e ${input/#\~\//$HOME/} ]] || die "--input=$input does not exist"

if [[ -n $dry_run ]]; then
  if ((${#head[@]})); then printf '%q ' "${head[@]}" && echo; fi
  for name in "${names[@]}"; do
    compose "$name"
    printf '%q ' "${line[@]}"
    echo
  done
  printf '%q ' "${command[@]}"
  echo
  exit 0
fi

[[ -d $logs ]] || made_logs=yes
[[ -d $output ]] || made_output=yes
mkdir -p "$logs" || exit
started=() driver='' asked=''
# shellcheck disable=SC2329  # the trap calls it
end_all() {
  local code=$? pid
  for pid in "${started[@]:1}"; do kill -TERM -- "-$pid" 2>/dev/null; done
  ((${#started[@]} < 2)) || sleep 3 # hosts take their leave of the head
  [[ -z ${started[0]:-} ]] || kill -TERM "${started[0]}" 2>/dev/null
  for pid in "${started[@]}"; do wait "$pid" 2>/dev/null; done
  [[ -z $driver ]] || { exec {errors}>&- && wait "$teller"; }
  # The extraction was asked wrong and has said so: nothing is left of it. What it has begun is.
  [[ -z $driver || $code != 2 || -z ${made_logs:-} || -e $output/shards ]] || rm -rf -- "$logs"
  [[ -z $driver || $code != 2 || -z ${made_output:-} ]] || rmdir -- "$output" 2>/dev/null
}
trap end_all EXIT

# Keeps a host in the cluster; its ssh has a pipe as stdin that ends when this shell does.
# shellcheck disable=SC2329  # it is called in the background
keep() {
  local log=$logs/ray-${1#*@}.log
  compose "$1"
  while true; do
    "${line[@]}" < <(echo "$RAY_AUTH_TOKEN" && exec sleep infinity) >>"$log" 2>&1
    kill "$!" 2>/dev/null
    printf '%(%F %T)T the host has left the cluster; it is tried again in 30 s\n' -1 >>"$log"
    sleep 30
  done
}

if ((${#head[@]})); then
  "${head[@]}" </dev/null >>"$logs/ray-head.log" 2>&1 &
  started+=($!)
  for ((tries = 0; ; tries++)); do
    "$ray" health-check "--address=$address" >/dev/null 2>&1 && break
    kill -0 "${started[0]}" 2>/dev/null || die "Ray did not start here; see $logs/ray-head.log"
    ((tries < 60)) || die "Ray does not answer at $address; see $logs/ray-head.log"
    sleep 1
  done
  for name in "${names[@]}"; do
    keep "$name" &
    started+=($!)
  done
  say "Ray is at $address; logs are in $logs"
fi

# shellcheck disable=SC2329  # traps call it
ask() {
  asked=$1
  [[ -z $driver ]] || kill -s "$1" "$driver" 2>/dev/null
}
trap 'ask INT' INT
trap 'ask TERM' TERM HUP

exec {errors}> >(trap '' INT TERM && exec tee -a "$logs/extract.log" >&2)
teller=$!
failures=0
while true; do
  "${command[@]}" </dev/null 2>&"$errors" {errors}>&- &
  driver=$!
  while true; do
    wait "$driver"
    code=$?
    kill -0 "$driver" 2>/dev/null || break # else a signal ended the wait
  done
  # 75: SIGTERM, not from here.
  if (((code <= 128 && code != 75) || code == 130)) || [[ -n $asked ]]; then exit "$code"; fi
  ((++failures <= retries)) || { say "killed $failures times (exit code $code): giving up" && exit "$code"; }
  say "the extraction was killed (exit code $code); $failures of $retries: starting it again"
  sleep 1
done
