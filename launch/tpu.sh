# The TPU of tpu_vm.sh: asked for, waited for, set up; sourced, not run.
# shellcheck shell=bash

POLL_SECONDS="${POLL_SECONDS:-60}"

# No function counts on `set -e`: it is off where one is called in a condition.

# gcloud's place for all that is about the TPU. Words of *_FLAGS are split.
place() {
  require TPU_NAME TPU_ZONE
  need gcloud
  PLACE=(--zone="$TPU_ZONE")
  if [[ -n "${TPU_PROJECT:-}" ]]; then PLACE+=(--project="$TPU_PROJECT"); fi
  read -ra CREATE_WORDS <<<"${CREATE_FLAGS:-}"
  read -ra SSH_WORDS <<<"${SSH_FLAGS:-}"
}

queued() { act gcloud compute tpus queued-resources "$@" "${PLACE[@]}"; }

# Runs a shell command on a worker, several, or all.
remote() {
  act gcloud compute tpus tpu-vm ssh "$TPU_NAME" --worker="$1" \
    --command="$2" "${SSH_WORDS[@]}" "${PLACE[@]}"
}

# Prints the state of a "queued-resources" or "tpu-vm", nothing if there is
# none. Of a list, since a failure then is never that it is not there.
state_of() {
  ask "$3" act gcloud compute tpus "$1" list \
    --format="value(name.basename(),$2)" "${PLACE[@]}" |
    awk -v name="$TPU_NAME" '$1 == name { print $2 }'
}

# Prints READY, NONE, WAITING, TAKEN or FAILED, and gcloud's own word for it.
state_of_tpu() {
  local queue node
  queue="$(state_of queued-resources state.state "${1-$TPU_NAME ACTIVE}")" ||
    return
  case "$queue" in
    "") echo NONE ;;
    SUSPENDED) echo "TAKEN $queue" ;;
    FAILED) echo "FAILED $queue" ;;
    ACTIVE)
      node="$(state_of tpu-vm state "$TPU_NAME READY")" || return
      case "$node" in
        READY) echo READY ;;
        "" | PREEMPTED | TERMINATED) echo "TAKEN ${node:-node deleted}" ;;
        *) echo "WAITING $node" ;;
      esac
      ;;
    *) echo "WAITING $queue" ;;
  esac
}

request() {
  local tier=()
  case "${TIER:-on-demand}" in
    on-demand) ;;
    spot | reserved) tier=("--$TIER") ;;
    *)
      say "TIER=$TIER: want on-demand, spot or reserved"
      exit 2
      ;;
  esac
  # Its name in papers, and on Kubernetes.
  if [[ "$TPU_TYPE" == v5e-* ]]; then
    say "TPU_TYPE=$TPU_TYPE: gcloud calls it v5litepod-${TPU_TYPE#v5e-}"
    exit 2
  fi
  TPU_IMAGE="${TPU_IMAGE:-$(accelerator "$TPU_TYPE" image)}"
  if [[ -z "$TPU_IMAGE" ]]; then
    say "TPU_TYPE=$TPU_TYPE is of no kind that launch/accelerators.tsv knows"
  fi
  require TPU_IMAGE
  queued create "$TPU_NAME" --node-id="$TPU_NAME" \
    --accelerator-type="$TPU_TYPE" --runtime-version="$TPU_IMAGE" \
    "${tier[@]}" "${CREATE_WORDS[@]}" && return
  say "gcloud refused $TPU_NAME. If it names a quota: set another TPU_ZONE," \
    "TPU_TYPE or TIER (each has a quota of its own), or ask for more in the" \
    "console under IAM & Admin, Quotas"
  return 1
}

# Whether the TPU has been seen or asked for: if it is not there then, somebody
# has deleted it. One that is taken away leaves its queued resource behind.
KNOWN=false

# Waits until the TPU is there; asks for it if it is not. "replace" deletes one
# that was taken away first. Returns 3 if it was deleted meanwhile, and 4 if
# waiting longer would not help.
await_tpu() {
  local replace="${1:-}" state asked=false before=""
  state="$(state_of_tpu "")" || return
  while [[ "$state" != READY ]]; do
    if [[ "$state" != "$before" ]]; then note "$TPU_NAME: $state"; fi
    before="$state"
    if [[ "$state" == NONE ]]; then
      if "$KNOWN"; then
        say "$TPU_NAME was deleted meanwhile"
        return 3
      fi
      request || return 4
      asked=true
    elif [[ "$state" == FAILED* && "$asked" == true ]]; then
      queued describe "$TPU_NAME" --format="yaml(state)"
      say "the request for $TPU_NAME failed, see above; 'delete' removes it"
      return 4
    elif [[ "$state" == WAITING* ]]; then
      sleep "$POLL_SECONDS"
    elif [[ "$replace" == replace ]]; then
      queued delete "$TPU_NAME" --force --quiet || return
      KNOWN=false
      state=NONE
      continue
    else
      say "$TPU_NAME is no more: 'resume' replaces it, 'delete' removes it"
      return 1
    fi
    KNOWN=true
    state="$(state_of_tpu)" || return
  done
  KNOWN=true
  note "$TPU_NAME is there"
}

set_up() {
  local answer commit folder status=0
  commit="$(git -C "$ROOT" rev-parse HEAD)" || return
  if [[ -n "$(git -C "$ROOT" status --porcelain)" ]]; then
    note "what is not committed stays here"
  fi
  answer="$(ask no remote all \
    "grep -qxs $commit rstar_run/commit && echo yes || echo no")" || {
    say "not every worker can be reached, see above. Several at once need" \
      "your key in ssh-agent: ssh-add ~/.ssh/google_compute_engine"
    return 1
  }
  if [[ "$answer" != *no* ]]; then
    note "every worker has ${commit:0:9}"
    return
  fi
  folder="$(mktemp -d)"
  act git -C "$ROOT" archive --format=tar.gz --prefix=rstar_jax/ \
    --output="$folder/rstar_jax.tar.gz" "$commit" &&
    act gcloud compute tpus tpu-vm scp "$folder/rstar_jax.tar.gz" \
      "$ROOT/launch/worker.sh" "$TPU_NAME:" --worker=all "${SSH_WORDS[@]}" \
      "${PLACE[@]}" &&
    remote all "$(printf '%q ' bash worker.sh setup "$commit" "$EXTRAS")" ||
    status=1
  rm -rf "$folder"
  if ((status)); then
    say "setup failed on a worker, see above. Run it again: workers that have" \
      "the commit are skipped"
  fi
  return "$status"
}
