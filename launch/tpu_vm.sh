#!/usr/bin/env bash
# Runs on a Cloud TPU slice: creates it, sets up all workers, runs, and resumes after a preemption.
#
#   launch/tpu_vm.sh [--dry-run] --name=eef --zone=us-west4-a --type=v5litepod-16 \
#     --workdir=gs://BUCKET/run [--project=...] [--version=v2-alpha-tpuv5-lite] [--spot] [--delete] \
#     [--attempts=100] -- --config=configs/webshop.py:official --config.model.path=gs://BUCKET/model
#
# Runs the checkout's HEAD. A preempted slice is deleted and recreated, and the run resumes from its
# work folder. A run that fails on a slice that is still READY ends this script. --delete deletes the
# slice after the run; --dry-run prints the commands of a run without preemption.
set -euo pipefail

dry_run=false name='' zone='' type='' workdir='' project='' version=v2-alpha-tpuv5-lite
spot=false delete=false attempts=100
while [ $# -gt 0 ]; do
  case "$1" in
    --dry-run) dry_run=true ;;
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --workdir=*) workdir=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --version=*) version=${1#*=} ;;
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

place=(--zone="$zone")
[ -z "$project" ] || place+=(--project="$project")

show() { printf '%q ' "$@"; echo; }
act() { if $dry_run; then show "$@"; else "$@"; fi; }
tpu() { act gcloud compute tpus tpu-vm "$1" "$name" "${place[@]}" "${@:2}"; }
on_all() { tpu ssh --worker=all --command="$1"; }

# Prints READY, PREEMPTED, TERMINATED, ...; ABSENT if there is no slice.
state() {
  $dry_run && { echo ABSENT; return; }
  gcloud compute tpus tpu-vm describe "$name" "${place[@]}" --format='value(state)' 2>/dev/null ||
    echo ABSENT
}

create() {
  local options=(--accelerator-type="$type" --version="$version")
  if $spot; then options+=(--spot); fi
  tpu create "${options[@]}"
}

archive=eef_jax.tar.gz
# The VM image's Python is older than 3.11, so uv installs one.
install="rm -rf eef && mkdir eef && tar -xzf $archive -C eef && cd eef \
&& python3 -m pip install --quiet --user uv && python3 -m uv venv --quiet --python 3.12 .venv \
&& python3 -m uv pip install --quiet --python .venv/bin/python --editable '.[tpu,gcs]'"
set_up() {
  act git -C "$(dirname "$0")/.." archive --format=tar.gz --output="$PWD/$archive" HEAD &&
    act gcloud compute tpus tpu-vm scp "$archive" "$name:" "${place[@]}" --worker=all &&
    on_all "$install"
}
run=$(printf '%q ' .venv/bin/python -m eef_jax.main --cluster --workdir="$workdir" "$@")
for ((attempt = 1; attempt <= attempts; attempt++)); do
  case "$(state)" in
    READY) ;;
    ABSENT) create || { sleep 60; continue; } ;;  # no capacity at the moment
    *) tpu delete --quiet; create || { sleep 60; continue; } ;;
  esac
  if set_up && on_all "cd eef && $run"; then
    if $delete; then tpu delete --quiet; fi
    exit 0
  fi
  if [ "$(state)" = READY ]; then
    echo "the run failed while $name was READY: see the messages above" >&2
    exit 1
  fi
  echo "$name was preempted: attempt $((attempt + 1)) of $attempts" >&2
done
echo "gave up after $attempts attempts" >&2
exit 1
