#!/usr/bin/env bash
# What tpu_vm.sh runs on each worker of a TPU VM, from the home folder.
#
#   bash worker.sh setup COMMIT EXTRAS  unpacks rstar_jax.tar.gz, installs it;
#                                       nothing where COMMIT is set up
#   bash worker.sh run ARGS...    starts rstar_jax.main in the background, as
#                                 one process of all workers
#   bash worker.sh state ARGS...  a word on the run with these ARGS
#   bash worker.sh status         that of any run, the commit, the last line
#   bash worker.sh logs           follows the log
#   bash worker.sh stop           sends SIGTERM, and waits for the run's end
#
# rstar_jax/ is the commit, rstar_venv/ what it needs, and in rstar_run/ are
# commit, log, and of the newest run: command, pid, lock, stopped, exit.
set -euo pipefail

STOP_SECONDS="${STOP_SECONDS:-60}"
SELF="$(realpath "$0")"

# Says it with the worker's number in front, as Cloud names its machines.
tell() { echo "$(hostname | grep -o 'w-[0-9]*$' || hostname): $*"; }

# Prints the name of a Python that is new enough, if there is one.
find_python() {
  local python
  for python in python3 python3.13 python3.12 python3.11; do
    if "$python" -c 'import ensurepip, sys; exit(sys.version_info < (3, 11))' \
      2>/dev/null; then
      echo "$python"
      return
    fi
  done
  return 1
}

commit() { cat rstar_run/commit 2>/dev/null || echo none; }

# The lock is held by the process that waits for the run, and by the run. Looks
# share it, or one would take another for a run.
is_running() { ! flock --shared --nonblock rstar_run/lock true; }

setup() {
  if [[ "$(commit)" == "$1" ]]; then
    tell "has ${1:0:9} already"
    return
  fi
  if is_running; then
    tell "a run of another commit is going on: stop it first" >&2
    return 1
  fi
  rm -f rstar_run/commit
  # The images are Ubuntu 22.04, whose python3 is 3.10.
  if ! find_python >/dev/null; then
    sudo apt-get update -qq
    sudo apt-get install -y -qq python3.11 python3.11-venv
  fi
  rm -rf rstar_jax
  tar xzf rstar_jax.tar.gz
  "$(find_python)" -m venv rstar_venv
  rstar_venv/bin/python -m pip install --quiet --upgrade -e "./rstar_jax[$2]"
  # Last: what was interrupted before this is done again.
  echo "$1" >rstar_run/commit
  tell "has ${1:0:9}"
}

signature() { printf '%q ' "$(commit)" "$@"; }

run() {
  exec 9>rstar_run/lock
  # A look at the state holds the lock too, for a moment.
  if ! flock --timeout 5 9; then
    tell "is running already"
    return
  fi
  rm -f rstar_run/{exit,pid,stopped}
  signature "$@" >rstar_run/command
  # Away from the terminal and from its hang-up; SIGTERM stays as it is.
  setsid nohup bash "$SELF" attend "$@" </dev/null >>rstar_run/log 2>&1 &
  tell "started"
}

# Runs it and writes down how it ended. There is no trap here: a machine that
# shuts down sends SIGTERM to all processes, and the run must have it once. This
# shell then dies, so that no exit status says that the run was done.
attend() {
  local status=0
  (
    echo "$BASHPID" >rstar_run/pid
    cd rstar_jax
    exec ../rstar_venv/bin/python -u -m rstar_jax.main --distributed "$@"
  ) || status=$?
  echo "$status" >rstar_run/exit
}

is_of() { [[ "$(signature "$@")" == "$(cat rstar_run/command)" ]]; }

# Prints running, busy (with other ARGS), done, failed STATUS, stopped,
# interrupted, or idle.
word() {
  if [[ ! -e rstar_run/command ]]; then
    echo idle
  elif is_running; then
    if (($# == 0)) || is_of "$@"; then echo running; else echo busy; fi
  elif (($#)) && ! is_of "$@"; then
    echo idle
  elif [[ -e rstar_run/stopped ]]; then
    echo stopped
  elif [[ ! -e rstar_run/exit ]]; then
    echo interrupted
  elif [[ "$(cat rstar_run/exit)" == 0 ]]; then
    echo "done"
  else
    echo "failed $(cat rstar_run/exit)"
  fi
}

state() { tell "$(word "$@")"; }

status() {
  tell "$(word), commit $(commit), $(tail -n 1 rstar_run/log 2>/dev/null)"
}

logs() {
  touch rstar_run/log
  tail -n 50 -F rstar_run/log | sed -u "s/^/$(tell)/"
}

stop() {
  if ! is_running; then
    tell "nothing is running"
    return
  fi
  touch rstar_run/stopped
  kill -TERM "$(cat rstar_run/pid)"
  if flock --shared --timeout "$STOP_SECONDS" rstar_run/lock true; then
    tell "has ended"
  else
    tell "is still running after $STOP_SECONDS s: see its log" >&2
    return 1
  fi
}

case "${1:-}" in
  setup | run | attend | state | status | logs | stop)
    verb="$1"
    shift
    cd
    mkdir -p rstar_run
    "$verb" "$@"
    ;;
  *)
    sed -n '2,/^set -euo/p' "$0" | sed -n 's/^# \{0,1\}//p' >&2
    [[ "${1:-}" == --help ]] || exit 2
    ;;
esac
