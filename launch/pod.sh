#!/usr/bin/env bash
# What gke.sh runs in each pod, in a folder that holds the repository.
#
#   bash launch/pod.sh EXTRAS ARGS...  installs what is missing, and runs
#                                      rstar_jax.main as one process of all pods
#
# EXTRAS are those of setup.py that the pods need, such as tpu,hub,gcs.
#
# A run that is told to end ends with 0. To Kubernetes that would be a run that
# is done, so that after SIGTERM this ends with 143: xpk starts those again.
set -euo pipefail

if [[ $# -lt 1 || "$1" == --help ]]; then
  sed -n '2,/^set -euo/p' "$0" | sed -n 's/^# \{0,1\}//p' >&2
  [[ "${1:-}" == --help ]] && exit
  exit 2
fi

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# A command in their place would be left out without a word.
EXTRAS="$1"
require_extras

if ! python -c 'import libtpu, rstar_jax.main' 2>/dev/null; then
  python -m pip install --quiet -e ".[$EXTRAS]"
fi
shift

told=false
python -u -m rstar_jax.main --distributed "$@" &
run=$!
# Once: a second one would end the run before it has saved anything. The run may
# have ended by itself, which is no error of this script.
trap '"$told" || kill -TERM "$run" 2>/dev/null || true; told=true' TERM
while :; do
  status=0
  wait "$run" || status=$?
  # A signal ends the wait before the run has ended.
  kill -0 "$run" 2>/dev/null || break
done
# What became of it, if it ended just before the last look.
if "$told"; then exit 143; fi
exit "$status"
