#!/usr/bin/env bash
# Runs rstar_jax on a Cloud TPU VM, of one host or of many.
#
#   launch/tpu_vm.sh [--dry-run] COMMAND [ARGS]
#
# bucket   makes the bucket of WORKDIR beside the TPU, unless it is there
# check    says what would fail on it, and what the run costs
# create   asks for the TPU (a queued resource) and waits until it is there
# setup    puts the commit at HEAD on every worker and installs it, unless it
#          is there
# run      starts the same command on every worker; ARGS go to rstar_jax.main
# logs     follows the logs of all workers, or of TPU_WORKER
# status   says what there is of the TPU, and what each worker does
# stop     tells the run to save what it has and to end; the TPU stays
# resume   create, setup and run, as far as they are needed; a TPU that was
#          taken away is asked for again
# keep     resume, again and again, until the run has ended well
# delete   deletes the TPU with its disks: it costs money until this
#
# --dry-run prints the commands instead, as if no TPU were there yet.
#
#   TPU_NAME TPU_ZONE  every command
#   TPU_TYPE           check, create, resume, keep: see launch/accelerators.tsv
#   CONFIG WORKDIR     check, run, resume, keep: WORKDIR is gs://BUCKET/NAME,
#                      or a folder that every worker sees
# Optional:
#   TIER               on-demand (if not set), spot or reserved
#   TPU_IMAGE          the runtime version; that of TPU_TYPE if not set
#   TPU_PROJECT        gcloud's own default if not set
#   TPU_WORKER         whose log to follow: 0, or 0,3, or all (if not set)
#   CHECK              no: resume and keep ask for the TPU without `check`
#   EXTRAS             what setup installs beside the package: tpu,hub,gcs
#   CREATE_FLAGS       more words for gcloud's create
#   SSH_FLAGS          more words for gcloud's ssh and scp: --internal-ip
#   POLL_SECONDS       between two looks at the TPU or at the run: 60
#   KEEP_TIMES         how often keep starts the run at the most: 20
#
# Exit status: 0 done; 1 failed; 2 called wrongly; 3 keep: somebody has called
# stop or delete.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
source "$(dirname "${BASH_SOURCE[0]}")/tpu.sh"
KEEP_TIMES="${KEEP_TIMES:-20}"
# Failures in a row with the TPU still there, after which keep gives up; and
# looks in a row at which not every worker answers, after which it is a failure.
FAILURES=3
SILENT_LOOKS=5

# Prints a command for the workers, quoted for their shell.
command_line() {
  printf '%q ' bash worker.sh "$1" "--config=$CONFIG" "--workdir=$WORKDIR" \
    "${@:2}"
}

# Prints what the workers do, a word for each: running, done, stopped, ...
# Fails unless every one answers.
words_of_workers() {
  local answer
  answer="$(ask "w-0: idle" remote all "$(command_line state "$@")")" || return
  sed -n 's/^[^ ]*: \([a-z]*\).*/\1/p' <<<"$answer"
}

# Prints done or running if that is what all of them are; busy, partly (running)
# or stopped if one of them is; and otherwise ended.
summary() {
  case "$(sort -u | tr '\n' ' ')" in
    "done ") echo "done" ;;
    "running ") echo running ;;
    *busy*) echo busy ;;
    *running*) echo partly ;;
    *stopped*) echo stopped ;;
    *) echo ended ;;
  esac
}

start() {
  local words
  words="$(words_of_workers "$@")" || {
    say "not every worker answers: see status"
    return 1
  }
  case "$(summary <<<"$words")" in
    "done") note "this command has ended well already" ;;
    running) note "it is running already: see logs" ;;
    busy)
      say "another command is running there: see status, and stop it first"
      return 1
      ;;
    partly)
      say "it runs on some workers only: they end within two minutes; or stop"
      return 1
      ;;
    *) remote all "$(command_line run "$@")" ;;
  esac
}

# Waits until the run ends. Returns 0 if it ended well, 3 if it was stopped.
watch() {
  local words silent=0 state
  while :; do
    if words="$(words_of_workers "$@")"; then
      silent=0
      case "$(summary <<<"$words")" in
        "done") return 0 ;;
        stopped) return 3 ;;
        ended)
          if "$DRY_RUN"; then return 0; fi
          say "the run has ended before its end:$(sort <<<"$words" | uniq -c |
            tr -s ' \n' ' ')(see logs)"
          return 1
          ;;
      esac
    else
      state="$(state_of_tpu)" || state=unknown
      say "not every worker answers; $TPU_NAME: $state"
      if [[ "$state" == TAKEN* ]]; then return 1; fi
      if ((++silent == SILENT_LOOKS)); then return 1; fi
    fi
    sleep "$POLL_SECONDS"
  done
}

bucket() {
  no_more "$@"
  require TPU_ZONE WORKDIR
  if [[ "$WORKDIR" != gs://* ]]; then
    say "WORKDIR=$WORKDIR is in no bucket: that would be gs://BUCKET/NAME"
    exit 2
  fi
  need gcloud
  local url project=()
  url="gs://$(cut -d / -f 3 <<<"$WORKDIR")"
  if [[ -n "${TPU_PROJECT:-}" ]]; then project=(--project="$TPU_PROJECT"); fi
  # A dry run goes on as if it were not there.
  if act gcloud storage buckets describe "$url" --format="value(name)" &&
    ! "$DRY_RUN"; then
    return
  fi
  act gcloud storage buckets create "$url" --location="${TPU_ZONE%-*}" \
    --uniform-bucket-level-access --public-access-prevention "${project[@]}"
}

create() {
  no_more "$@"
  place
  require TPU_TYPE
  await_tpu || exit 1
}

setup() {
  no_more "$@"
  place
  require_extras
  set_up
}

run() {
  place
  require_config
  start "$@"
}

logs() {
  no_more "$@"
  place
  remote "${TPU_WORKER:-all}" "bash worker.sh logs"
}

status() {
  no_more "$@"
  place
  local state
  state="$(state_of_tpu)"
  echo "$TPU_NAME: $state"
  if [[ "$state" == READY ]]; then remote all "bash worker.sh status"; fi
}

stop() {
  no_more "$@"
  place
  remote all "bash worker.sh stop"
}

# Makes the run run, whatever that takes.
bring_up() { await_tpu replace && set_up && start "$@"; }

see_through() { bring_up "$@" && watch "$@"; }

resume() {
  place
  require TPU_TYPE
  require_config
  require_extras
  check "$@"
  bring_up "$@" || exit 1
}

keep() {
  place
  require TPU_TYPE
  require_config
  require_extras
  check "$@"
  local times failures=0 status state
  for ((times = 1; times <= KEEP_TIMES; times++)); do
    note "start $times of $KEEP_TIMES"
    status=0
    see_through "$@" || status=$?
    case "$status" in
      0)
        note "the run has ended well; 'delete' gives the TPU back"
        return
        ;;
      3)
        say "the run was stopped, or the TPU deleted: keep ends here"
        exit 3
        ;;
      4) exit 1 ;;
    esac
    state="$(state_of_tpu)" || state=unknown
    failures=$((failures + 1))
    if [[ "$state" != READY ]]; then failures=0; fi
    if ((failures == FAILURES)); then
      say "failed $FAILURES times in a row with the TPU there: see logs"
      exit 1
    fi
    sleep "$POLL_SECONDS"
  done
  say "started $KEEP_TIMES times, and not done: keep again, or raise KEEP_TIMES"
  exit 1
}

delete() {
  no_more "$@"
  place
  local state
  state="$(state_of_tpu)" || exit 1
  if [[ "$state" == NONE ]]; then
    say "there is no $TPU_NAME in $TPU_ZONE: nothing was deleted. What there" \
      "is: gcloud compute tpus queued-resources list ${PLACE[*]}"
    exit 1
  fi
  queued delete "$TPU_NAME" --force --quiet
}

dispatch \
  "bucket check create setup run logs status stop resume keep delete" "$@"
