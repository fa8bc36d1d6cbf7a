#!/usr/bin/env bash
# Runs rstar_jax on a Cloud TPU VM, of one host or of many.
#
#   launch/tpu_vm.sh [--dry-run] create | setup | run [ARGS...] | logs | delete
#
# create  makes the TPU VM
# setup   copies this checkout (what is committed) to every worker, installs it
# run     starts the same command on every worker, in the background; started
#         again after an interruption, it resumes. ARGS go to rstar_jax.main
# logs    follows the log of one worker
# delete  deletes the TPU VM
#
# --dry-run prints the commands instead. Variables:
#   TPU_NAME TPU_ZONE     every command
#   TPU_TYPE TPU_IMAGE    create: e.g. v5litepod-16 and v2-alpha-tpuv5-lite
#   CONFIG WORKDIR        run: WORKDIR is a folder that every worker sees
#   TPU_PROJECT           optional: gcloud's own default otherwise
#   TPU_WORKER            optional: whose log to follow, 0 otherwise
set -euo pipefail

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
DRY_RUN=false

# Prints the comment at the top of this file.
usage() {
  sed -n '2,/^set -euo/p' "${BASH_SOURCE[0]}" | sed -n 's/^# \{0,1\}//p'
}

# Stops unless each variable that is named has a value.
require() {
  local name
  for name in "$@"; do
    if [[ -z "${!name:-}" ]]; then
      echo "tpu_vm.sh: set $name first" >&2
      exit 2
    fi
  done
}

# Runs a command, or prints it.
act() {
  if "$DRY_RUN"; then
    printf '%q ' "$@"
    printf '\n'
  else
    "$@"
  fi
}

# gcloud compute tpus tpu-vm VERB ..., in the right place.
tpu() {
  local verb="$1"
  shift
  act gcloud compute tpus tpu-vm "$verb" "$@" --zone="$TPU_ZONE" \
    ${TPU_PROJECT:+--project="$TPU_PROJECT"}
}

# Runs a shell command on a worker, or on "all".
remote() {
  tpu ssh "$TPU_NAME" --worker="$1" --command="$2"
}

create() {
  require TPU_TYPE TPU_IMAGE
  tpu create "$TPU_NAME" --accelerator-type="$TPU_TYPE" --version="$TPU_IMAGE"
}

setup() {
  local archive
  archive="$(mktemp -d)/rstar_jax.tar.gz"
  act git -C "$ROOT" archive --format=tar.gz --prefix=rstar_jax/ \
    --output="$archive" HEAD
  tpu scp "$archive" "$TPU_NAME:rstar_jax.tar.gz" --worker=all
  rm -rf "$(dirname "$archive")"
  remote all "tar xzf rstar_jax.tar.gz && bash rstar_jax/launch/worker.sh setup"
}

run() {
  require CONFIG WORKDIR
  local command
  command="$(printf '%q ' bash rstar_jax/launch/worker.sh run \
    "--config=$CONFIG" "--workdir=$WORKDIR" "$@")"
  remote all "$command"
}

logs() {
  remote "${TPU_WORKER:-0}" "tail -n 50 -F rstar_jax/run.log"
}

delete() {
  tpu delete "$TPU_NAME"
}

if [[ "${1:-}" == "--dry-run" ]]; then
  DRY_RUN=true
  shift
fi
verb="${1:-}"
case "$verb" in
  create | setup | run | logs | delete)
    shift
    require TPU_NAME TPU_ZONE
    "$verb" "$@"
    ;;
  -h | --help) usage ;;
  *)
    usage >&2
    exit 2
    ;;
esac
