#!/usr/bin/env bash
# Runs on TPU slices of a GKE cluster with xpk (pip install xpk).
#
#   launch/gke_xpk.sh [--dry-run] --cluster=CLUSTER --zone=us-west4-a --type=v5litepod-16 \
#     --image=REGISTRY/eef-jax:tpu --name=eef-1 --workdir=gs://BUCKET/run [--project=...] \
#     [--slices=1] [--restarts=50] [--build] -- --config=configs/webshop.py:official
#
# --build builds the image from launch/Dockerfile and pushes it. The cluster restarts a preempted
# workload, which resumes from its work folder. --dry-run prints the commands.
set -euo pipefail

dry_run=false cluster='' zone='' type='' image='' name='' workdir='' project=''
slices=1 restarts=50 build=false
while [ $# -gt 0 ]; do
  case "$1" in
    --dry-run) dry_run=true ;;
    --cluster=*) cluster=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --image=*) image=${1#*=} ;;
    --name=*) name=${1#*=} ;;
    --workdir=*) workdir=${1#*=} ;;
    --project=*) project=${1#*=} ;;
    --slices=*) slices=${1#*=} ;;
    --restarts=*) restarts=${1#*=} ;;
    --build) build=true ;;
    --) shift; break ;;
    *) echo "unknown option $1: see the top of $0 for its options; flags of the run come after --" >&2; exit 2 ;;
  esac
  shift
done
for needed in cluster zone type image name workdir; do
  [ -n "${!needed}" ] || { echo "--$needed is missing: see the top of $0 for an example" >&2; exit 2; }
done

act() { if $dry_run; then printf '%q ' "$@"; echo; else "$@"; fi; }

root=$(dirname "$0")/..
if $build; then
  act docker build --target=tpu --file="$root/launch/Dockerfile" --tag="$image" "$root"
  act docker push "$image"
fi
run=$(printf '%q ' python -m eef_jax.main --cluster --workdir="$workdir" "$@")
place=(--zone="$zone")
[ -z "$project" ] || place+=(--project="$project")
act xpk workload create --cluster="$cluster" "${place[@]}" --workload="$name" --tpu-type="$type" \
  --num-slices="$slices" --docker-image="$image" --max-restarts="$restarts" --command="$run"
