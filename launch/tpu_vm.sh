#!/usr/bin/env bash
# Runs on a Cloud TPU slice: creates it, sets up all workers, runs, follows, and resumes after a preemption.
#
#   launch/tpu_vm.sh [--dry-run] --name=eef --zone=us-west4-a --type=v5litepod-16 \
#     --workdir=gs://BUCKET/run [--project=...] [--version=...] [--spot] [--delete] [--attempts=100] \
#     [--ship=PATH]... [--env=NAME]... -- --config=configs/webshop.py:official --config.model.path=gs://BUCKET/model
#
# The same command again follows a run that is under way. The run does not need this terminal: Ctrl-C or a
# lost connection leaves it running, but a preempted slice is only created again by a launcher that follows.
#
# --ship copies a file or folder (data, plug-ins) next to the checkout's HEAD on all workers: one below the
# current folder keeps its path, others are named by their last part. --env passes a variable of this
# terminal, such as OPENAI_API_KEY. --version is the TPU's software, by default that of the type. Extras are
# installed as the config needs them. A run ends this script unless its exit code asks for a restart: 42,
# another process died; 143 and 137, it was told to end. --delete deletes the slice after the run;
# --dry-run prints the commands of a run without preemption.
set -euo pipefail

dry_run=false name='' zone='' type='' workdir='' project='' version='' spot=false delete=false
attempts=100 ship=() variables=()
while [ $# -gt 0 ]; do
  case "$1" in
    --dry-run) dry_run=true ;;
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --workdir=*) workdir=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --version=*) version=${1#*=} ;;
    --ship=*) ship+=("${1#*=}") ;;
    --env=*) variables+=("${1#*=}") ;;
    --spot) spot=true ;;
    --delete) delete=true ;;
    --attempts=*) attempts=${1#*=} ;;
    --) shift; break ;;
    *) echo "unknown option $1: see the top of $0 for its options; flags of the run come after --" >&2; exit 2 ;;
  esac
  shift
done
for needed in name zone type workdir; do
  [ -n "${!needed}" ] || { echo "--$needed is missing: see the top of $0 for an example" >&2; exit 2; }
done
for path in ${ship[@]+"${ship[@]}"}; do
  [ -e "$path" ] || { echo "--ship=$path: there is no such file or folder" >&2; exit 2; }
done
for variable in ${variables[@]+"${variables[@]}"}; do
  [ -n "${!variable:-}" ] || { echo "--env=$variable: the variable is not set here" >&2; exit 2; }
done
if [ -z "$version" ]; then
  case "$type" in
    v5litepod-*) version=v2-alpha-tpuv5-lite ;;
    v5p-*) version=v2-alpha-tpuv5 ;;
    v6e-*) version=v2-alpha-tpuv6e ;;
    v2-* | v3-* | v4-*) version=tpu-ubuntu2204-base ;;
    *) echo "--version is missing: none is known for --type=$type (cloud.google.com/tpu/docs/runtimes)" >&2; exit 2 ;;
  esac
fi

place=(--zone="$zone")
[ -z "$project" ] || place+=(--project="$project")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
root=$(cd "$(dirname "$0")/.." && pwd)

act() { if $dry_run; then printf '%q ' "$@"; echo; else "$@"; fi; }
tpu() { act gcloud compute tpus tpu-vm "$1" "$name" "${place[@]}" "${@:2}"; }
on_all() { tpu ssh --worker=all --command="cd eef && $1"; }
on_first() { tpu ssh --worker=0 --command="cd eef && $1"; }

# Prints READY, PREEMPTED, TERMINATED, ...; ABSENT if there is no slice.
slice() {
  $dry_run && { echo ABSENT; return; }
  gcloud compute tpus tpu-vm describe "$name" "${place[@]}" --format='value(state)' 2>/dev/null || echo ABSENT
}

# Prints what `worker.sh state` says of worker 0; nothing where it cannot be reached.
run_state() { $dry_run && return; on_first "launch/worker.sh state" 2>/dev/null || true; }

create() {
  local options=(--accelerator-type="$type" --version="$version")
  if $spot; then options+=(--spot); fi
  tpu create "${options[@]}"
}

pack() {
  local path
  act git -C "$root" archive --format=tar --output="$folder/eef.tar" HEAD || return
  for path in ${ship[@]+"${ship[@]}"}; do
    case "$path" in
      /* | *..*) act tar --append --file="$folder/eef.tar" -C "$(dirname "$path")" "$(basename "$path")" || return ;;
      *) act tar --append --file="$folder/eef.tar" "$path" || return ;;
    esac
  done
  (umask 077; : >"$folder/run.env"
    for variable in ${variables[@]+"${variables[@]}"}; do
      printf '%s=%s\n' "$variable" "${!variable}" >>"$folder/run.env"
    done)
}

fields=()
for word in "$@"; do
  case "$word" in --config*) fields+=("$word") ;; esac
done
setup=$(printf '%q ' launch/worker.sh setup tpu,gcs ${fields[@]+"${fields[@]}"})
start=$(printf '%q ' launch/worker.sh start .venv/bin/python -m eef_jax.main --cluster --workdir="$workdir" "$@")

set_up() {
  pack &&
    act gcloud compute tpus tpu-vm scp "$folder/eef.tar" "$folder/run.env" "$name:" "${place[@]}" --worker=all &&
    tpu ssh --worker=all --command="mkdir -p eef && tar -xf eef.tar -C eef && mv run.env eef/" &&
    on_all "$setup"
}

# Follows the run until it ends; prints what `run_state` says then, nothing if the slice is gone.
follow() {
  local found
  while true; do
    on_first "launch/worker.sh follow" >&2 || true
    found=$(run_state)
    case "$found" in
      running) ;; # the connection broke, the run did not
      '') if [ "$(slice)" = READY ]; then sleep 20; else return 0; fi ;;
      *) echo "$found"; return 0 ;;
    esac
  done
}

[ -z "$(git -C "$root" status --porcelain)" ] || echo "changes that are not committed do not run: HEAD does" >&2
for ((attempt = 1; attempt <= attempts; attempt++)); do
  case "$(slice)" in
    READY) ;;
    ABSENT) create || { sleep 60; continue; } ;; # no capacity at the moment
    *) tpu delete --quiet; create || { sleep 60; continue; } ;;
  esac
  if $dry_run; then
    set_up
    on_all "$start"
    on_first "launch/worker.sh follow"
    if $delete; then tpu delete --quiet; fi
    exit 0
  fi
  if [ "$(run_state)" != running ]; then
    if ! { set_up && on_all "$start"; }; then
      [ "$(slice)" = READY ] || continue # preempted meanwhile
      echo "setting $name up failed: see the messages above" >&2
      exit 1
    fi
  fi
  ended=$(follow)
  case "$ended" in
    'ended 0')
      if $delete; then tpu delete --quiet; fi
      exit 0
      ;;
    '') echo "$name was preempted: attempt $((attempt + 1)) of $attempts" >&2 ;;
    'ended 42' | 'ended 137' | 'ended 143')
      echo "the run $ended, which asks for a restart: attempt $((attempt + 1)) of $attempts" >&2
      ;;
    *)
      echo "the run on $name $ended: see the messages above" >&2
      exit "${ended#ended }"
      ;;
  esac
done
echo "gave up after $attempts attempts" >&2
exit 1
