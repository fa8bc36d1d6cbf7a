#!/usr/bin/env bash
# What tpu_vm.sh runs on each worker of a TPU VM.
#
#   launch/worker.sh setup        makes .venv with the TPU build of jax
#   launch/worker.sh run ARGS...  starts rstar_jax.main in the background, as
#                                 one process of all workers
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Prints the name of a Python that is new enough, if there is one.
find_python() {
  local python
  for python in python3 python3.13 python3.12 python3.11; do
    if "$python" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' \
      2>/dev/null; then
      echo "$python"
      return
    fi
  done
  return 1
}

setup() {
  # The images are Ubuntu 22.04, whose python3 is 3.10.
  if ! find_python >/dev/null; then
    sudo apt-get update -qq
    sudo apt-get install -y -qq python3.11 python3.11-venv
  fi
  "$(find_python)" -m venv .venv
  .venv/bin/python -m pip install --quiet --upgrade -e '.[tpu]'
}

run() {
  # The lock makes a second start harmless: it says so in the log and ends.
  nohup flock --nonblock --verbose run.lock \
    .venv/bin/python -m rstar_jax.main --distributed "$@" >>run.log 2>&1 </dev/null &
  echo "$(hostname): started, pid $!"
}

case "${1:-}" in
  setup | run)
    verb="$1"
    shift
    "$verb" "$@"
    ;;
  *)
    echo "usage: worker.sh setup | run ARGS..." >&2
    exit 2
    ;;
esac
