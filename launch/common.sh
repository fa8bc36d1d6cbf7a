# What tpu_vm.sh, gke.sh and pod.sh share; sourced, not run.
# shellcheck shell=bash

if ((BASH_VERSINFO[0] < 5)); then
  echo "$0 wants bash 5, and this is $BASH_VERSION: brew install bash" >&2
  exit 2
fi

ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
NAME="$(basename "$0")"
DRY_RUN=false
EXTRAS="${EXTRAS:-tpu,hub,gcs}"
# Commands of a dry run go here, also where a function's output is captured.
exec 3>&1

# Prints the comment at the top of the script that was called.
usage() {
  sed -n '2,/^set -euo/p' "$0" | sed -n 's/^# \{0,1\}//p'
}

say() { echo "$NAME: $*" >&2; }

# Says what goes on: in a dry run nothing does.
note() { "$DRY_RUN" || say "$@"; }

# Stops unless each variable that is named has a value.
require() {
  local name
  for name in "$@"; do
    if [[ -z "${!name:-}" ]]; then
      say "set $name first: $(meaning "$name")"
      exit 2
    fi
  done
}

# Stops unless WORKDIR is the same place from any folder: a worker runs in the
# folder of the commit, which the next commit replaces.
require_workdir() {
  require WORKDIR
  if [[ "$WORKDIR" != gs://* && "$WORKDIR" != /* ]]; then
    say "WORKDIR=$WORKDIR: set gs://BUCKET/NAME, or a folder from / on that" \
      "every worker sees"
    exit 2
  fi
}

# Stops unless CONFIG is in the commit, which is what a worker gets; a name
# alone is one of those that come with the package.
require_config() {
  require CONFIG
  require_workdir
  local file="${CONFIG%%:*}" names
  # The config.json of a run, which only workers may see.
  if [[ "$CONFIG" == *.json || -n "${DOCKER_IMAGE:-}" ]]; then return; fi
  if [[ "$file" != */* ]]; then file="configs/$file"; fi
  if ! git -C "$ROOT" cat-file -e "HEAD:$file" 2>/dev/null; then
    names="$(git -C "$ROOT" ls-tree --name-only HEAD configs/ | tr '\n' ' ')"
    say "CONFIG=$CONFIG: the commit has no $file, so no worker will have it;" \
      "commit it, or take one of $names"
    exit 2
  fi
}

# Stops unless setup.py has each of EXTRAS, which are separated by commas or
# spaces: pip only warns of one that it does not know.
require_extras() {
  local words extra
  read -ra words <<<"${EXTRAS//,/ }"
  for extra in "${words[@]}"; do
    if ! grep -q "^  \"$extra\":" "$ROOT/setup.py"; then
      say "$extra is no extra of setup.py: give EXTRAS such as tpu,hub,gcs"
      exit 2
    fi
  done
}

# Stops unless a program is there; a dry run calls none.
need() {
  if "$DRY_RUN" || command -v "$1" >/dev/null; then return; fi
  local from
  case "$1" in
    gcloud) from="https://cloud.google.com/sdk/docs/install" ;;
    xpk) from="pip install xpk" ;;
    kubectl) from="gcloud components install kubectl" ;;
  esac
  say "there is no $1 here; install it: $from"
  exit 2
}

# Says what a variable wants.
meaning() {
  case "$1" in
    TPU_NAME) echo "a name of yours for the TPU, such as rstar" ;;
    TPU_ZONE) echo "where it is, such as us-west4-a" ;;
    TPU_TYPE) echo "one of launch/accelerators.tsv, such as v5litepod-16" ;;
    TPU_IMAGE) echo "the runtime version of this TPU_TYPE" ;;
    CONFIG) echo "a file of the commit, such as configs/tiny.py" ;;
    WORKDIR) echo "gs://BUCKET/NAME, or a folder that every worker sees" ;;
    CLUSTER) echo "a name of yours for the GKE cluster, such as rstar" ;;
    TPU_PROJECT) echo "the id of your Google Cloud project" ;;
    WORKLOAD) echo "a name of yours for the run, such as tiny-1" ;;
    RESERVATION) echo "the reservation's name, since TIER=reserved" ;;
  esac
}

# Stops if a command was given words that it has no use for.
no_more() {
  if (($#)); then
    say "this command takes no more words: $*"
    exit 2
  fi
}

# Prints words as a shell would want them.
quoted() {
  local word
  for word in "$@"; do
    if [[ ! "$word" =~ ^[[:alnum:]_@%+=:,./-]+$ ]]; then word="${word@Q}"; fi
    printf '%s ' "$word"
  done
}

# Runs a command, or prints it.
act() {
  if "$DRY_RUN"; then
    quoted "$@" >&3
    echo >&3
  else
    "$@"
  fi
}

# Asks with a command that changes nothing and goes through `act`. The answer in
# a dry run is the first argument.
ask() {
  local answer="$1"
  shift
  "$@" || return
  if "$DRY_RUN"; then echo "$answer"; fi
}

# Prints the column of launch/accelerators.tsv for a TPU_TYPE. One of another
# size than those of the table has the image of its kind.
accelerator() {
  awk -F '\t' -v type="$1" -v column="$2" '
    NR == 1 { for (i = 1; i <= NF; i++) if ($i == column) wanted = i; next }
    $1 == type { exact = $wanted }
    { kind = $1; sub(/-[^-]*$/, "", kind) }
    kind "-" == substr(type, 1, length(kind) + 1) { similar = $wanted }
    END { print exact ? exact : column == "image" ? similar : "" }
  ' "$ROOT/launch/accelerators.tsv"
}

# Says what would fail on the TPU, and what the run costs, before one is asked
# for. Of the run's arguments those of its config and --grace count.
check() {
  local args=()
  while (($#)); do
    case "$1" in
      --config*=* | --noconfig.* | --grace=*) args+=("$1") ;;
      --config* | --grace)
        args+=("$1")
        # A truth value has none.
        if [[ $# -gt 1 && "$2" != --* ]]; then
          args+=("$2")
          shift
        fi
        ;;
    esac
    shift
  done
  require TPU_TYPE CONFIG
  require_workdir
  if [[ "${CHECK:-yes}" == no ]]; then return; fi
  if ! "$DRY_RUN" && ! command -v rstar_jax >/dev/null; then
    say "nothing is checked before the TPU is asked for: pip install -e $ROOT"
    return
  fi
  # From there, as a worker has it, so that CONFIG is found.
  (cd "$ROOT" && act rstar_jax check "--config=$CONFIG" \
    "--topology=$TPU_TYPE" "--workdir=$WORKDIR" "${args[@]}") && return
  say "see the errors above; CHECK=no asks for the TPU all the same"
  exit 1
}

# Calls the command that was given as words, one of those of the first argument,
# after --dry-run or --help.
dispatch() {
  local verbs="$1"
  shift
  if [[ "${1:-}" == "--dry-run" ]]; then
    DRY_RUN=true
    shift
  fi
  local verb="${1:-}"
  if [[ "$verb" == -h || "$verb" == --help ]]; then
    usage
  elif [[ -n "$verb" && " $verbs " == *" $verb "* ]]; then
    shift
    "$verb" "$@"
  else
    usage >&2
    if [[ -n "$verb" ]]; then say "$verb: want one of $verbs"; fi
    exit 2
  fi
}
