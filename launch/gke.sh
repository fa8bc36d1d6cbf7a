#!/usr/bin/env bash
# Runs rstar_jax on TPUs of Google Kubernetes Engine, through xpk.
#
#   launch/gke.sh [--dry-run] COMMAND [ARGS]
#
# check   says what would fail on the TPU, and what the run costs
# create  makes the cluster with one slice of TPU_TYPE, or repairs it
# run     starts the same command on every worker of the slice; ARGS go to
#         rstar_jax.main. What is interrupted is started again by itself
# wait    waits until the run ends
# logs    follows the logs of all workers
# status  lists the cluster's runs
# stop    deletes the run: SIGTERM, then 30 seconds to save what it has.
#         Started again, it resumes from WORKDIR
# delete  deletes the cluster: it costs money until this
#
# --dry-run prints the commands instead.
#
#   CLUSTER TPU_ZONE TPU_PROJECT  every command
#   TPU_TYPE                      check, create, run: see accelerators.tsv
#   WORKLOAD                      run, wait, logs, stop: the run's name
#   CONFIG WORKDIR                check, run: WORKDIR is gs://BUCKET/NAME
# Optional:
#   TIER           on-demand (if not set), spot, or reserved with RESERVATION
#   BASE_IMAGE     an image with Python that the commit is added to: python:3.12
#   DOCKER_IMAGE   an image of your own instead, whose working directory holds
#                  the repository; what it lacks is installed at the start
#   CHECK          no: run does not check first
#   EXTRAS         what a worker installs beside the package: tpu,hub,gcs
#   MAX_RESTARTS   how often a run is started again: 20
#
# Exit status: that of xpk, so that `wait` ends with 125 if the run failed; 2 if
# called wrongly.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# xpk GROUP VERB ..., in the right place.
xpk_() {
  require CLUSTER TPU_ZONE TPU_PROJECT
  need xpk
  act xpk "$1" "$2" --cluster="$CLUSTER" --zone="$TPU_ZONE" \
    --project="$TPU_PROJECT" "${@:3}"
}

create() {
  no_more "$@"
  require CLUSTER TPU_TYPE
  local tier
  case "${TIER:-on-demand}" in
    on-demand | spot) tier="--${TIER:-on-demand}" ;;
    reserved)
      require RESERVATION
      tier="--reservation=$RESERVATION"
      ;;
    *)
      say "TIER=$TIER: want on-demand, spot or reserved"
      exit 2
      ;;
  esac
  xpk_ cluster create --tpu-type="$TPU_TYPE" --num-slices=1 "$tier"
}

run() {
  require CLUSTER TPU_TYPE WORKLOAD CONFIG WORKDIR
  if [[ "$WORKDIR" != gs://* ]]; then
    say "WORKDIR=$WORKDIR: pods share no folder; set gs://BUCKET/NAME"
    exit 2
  fi
  require_config
  # An image of your own may have another setup.py, which pod.sh looks at.
  if [[ -z "${DOCKER_IMAGE:-}" ]]; then require_extras; fi
  local command folder status=0 image
  check "$@"
  command="exec $(printf '%q ' bash launch/pod.sh "$EXTRAS" \
    "--config=$CONFIG" "--workdir=$WORKDIR" "$@")"
  folder="$(mktemp -d)"
  image=(--base-docker-image="${BASE_IMAGE:-python:3.12}"
    --script-dir="$folder")
  if [[ -n "${DOCKER_IMAGE:-}" ]]; then
    image=(--docker-image="$DOCKER_IMAGE")
  else
    act git -C "$ROOT" archive --output="$folder.tar" HEAD
    act tar -xf "$folder.tar" -C "$folder"
  fi
  # A host that is lost ends the others with 1, which is no reason to give up.
  xpk_ workload create --workload="$WORKLOAD" --tpu-type="$TPU_TYPE" \
    --num-slices=1 "${image[@]}" --command="$command" \
    --max-restarts="${MAX_RESTARTS:-20}" --restart-on-exit-codes=1 ||
    status=$?
  rm -rf "$folder" "$folder.tar"
  return "$status"
}

wait() {
  no_more "$@"
  require CLUSTER WORKLOAD
  xpk_ workload list --wait-for-job-completion="$WORKLOAD"
}

logs() {
  no_more "$@"
  require CLUSTER TPU_ZONE TPU_PROJECT WORKLOAD
  need gcloud
  need kubectl
  # xpk's clusters are of the zone's region.
  act gcloud container clusters get-credentials "$CLUSTER" \
    --location="${TPU_ZONE%-*}" --project="$TPU_PROJECT"
  act kubectl logs --selector="xpk.google.com/workload=$WORKLOAD" \
    --follow --prefix --tail=50 --max-log-requests=256
}

status() {
  no_more "$@"
  xpk_ workload list
}

stop() {
  no_more "$@"
  require CLUSTER WORKLOAD
  xpk_ workload delete --workload="$WORKLOAD" --force
}

delete() {
  no_more "$@"
  xpk_ cluster delete --force
}

dispatch "check create run wait logs status stop delete" "$@"
