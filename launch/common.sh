#!/usr/bin/env bash
# What run_pod.sh and extract_ray.sh share, which source it: how they speak, read options and reach
# other hosts.
program=${BASH_SOURCE[1]##*/}

die() {
  echo "$program: $1" >&2
  exit 2
}
say() { printf '%(%F %T)T %s: %s\n' -1 "${program%.sh}" "$1" >&2; }

whole() { # bash would read 010 as eight
  [[ $2 =~ ^(0|[1-9][0-9]{0,8})$ ]] || die "$1 must be a whole number, not '$2'"
}
a_port() { [[ $1 =~ ^[1-9][0-9]{0,4}$ ]] && (($1 < 65536)); }
check_port() { a_port "$1" || die "--port must be 1 to 65535, not '$1'"; }

# $1: what --hosts names; $2: the remedy where it names a host twice.
check_hosts() {
  local names name seen=,
  # One more comma: `read` leaves out an empty last name.
  IFS=, read -r -a names <<<"$1,"
  for name in "${names[@]}"; do
    [[ -n $name ]] || die "--hosts=$1 names a host without a name: --hosts=a,b,c"
    # ssh would read a name that begins with - as an option, which may run a command.
    [[ $name != *[[:space:]]* && $name != -* ]] || die "--hosts=$1: '$name' is no name of a host"
    name=${name#*@}
    [[ $seen != *",$name,"* ]] || die "--hosts=$1 names $name twice; $2"
    seen+=$name,
  done
}

# The options of a command line in one spelling, in `options`. Python's flags are written
# --like_this, those of scripts --like-this; both are right here, and `--name value` is --name=value
# for the names in $1. Names of settings (--config.NAME) and what stands behind -- stay as they are.
read_options() {
  local valued=" $1 " name
  options=()
  shift
  while (($#)); do
    [[ $1 != -- ]] || { options+=("$@") && return; }
    name=${1%%=*}
    [[ $name != --* || $name == --config* ]] || name=${name//_/-}
    if [[ $1 != *=* && $valued == *" $name "* ]]; then
      (($# > 1)) && [[ $2 != --* ]] || die "$name has no value; see launch/$program --help"
      options+=("$name=$2")
      shift
    else
      options+=("$name${1#"${1%%=*}"}")
    fi
    shift
  done
}

# -o: a password would wait for nobody. How soon a host that has gone is noticed, each script says.
# shellcheck disable=SC2034  # the scripts use it
ssh=(ssh -o BatchMode=yes)
