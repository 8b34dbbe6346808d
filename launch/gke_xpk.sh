#!/usr/bin/env bash
# Runs on TPU slices of a GKE cluster with xpk (pip install xpk).
#
#   launch/gke_xpk.sh [--dry-run] --cluster=CLUSTER --zone=us-west4-a --type=v5litepod-16 \
#     --image=REGISTRY/eef-jax:tpu --name=eef-1 --workdir=gs://BUCKET/run [--project=...] \
#     [--slices=1] [--restarts=50] [--build] [--extras=openai] [--env=NAME]... \
#     -- --config=configs/webshop.py:official --config.model.path=gs://BUCKET/model
#
# --build builds the image from launch/Dockerfile, with everything in the checkout's folder (data and plug-ins
# too), and pushes it; --extras are further extras in it (`python -m eef_jax.config.extras --config=...` prints
# those of a config; a simulator's brings Java). --env passes a variable of this terminal, such as
# OPENAI_API_KEY; its value is in the workload's description, which whoever may list the cluster's jobs can
# read. The cluster restarts a preempted workload, and one whose exit code asks for it: 42, another process
# died; 143 and 137, it was told to end or killed. It resumes from its work folder. The run does not need this
# terminal: `xpk workload list` and the cluster's logs follow it. --dry-run prints the commands.
# Options as of xpk 1.x.
set -euo pipefail

dry_run=false cluster='' zone='' type='' image='' name='' workdir='' project=''
slices=1 restarts=50 build=false extras='' variables=()
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
    --extras=*) extras=${1#*=} ;;
    --env=*) variables+=("${1#*=}") ;;
    --) shift; break ;;
    *) echo "unknown option $1: see the top of $0 for its options; flags of the run come after --" >&2; exit 2 ;;
  esac
  shift
done
for needed in cluster zone type image name workdir; do
  [ -n "${!needed}" ] || { echo "--$needed is missing: see the top of $0 for an example" >&2; exit 2; }
done
for variable in ${variables[@]+"${variables[@]}"}; do
  [ -n "${!variable:-}" ] || { echo "--env=$variable: the variable is not set here" >&2; exit 2; }
done

act() { if $dry_run; then printf '%q ' "$@"; echo; else "$@"; fi; }

root=$(dirname "$0")/..
if $build; then
  arguments=()
  [ -z "$extras" ] || arguments+=(--build-arg "EXTRAS=,$extras")
  if [[ ",$extras," == *,scienceworld,* || ",$extras," == *,textworld-express,* ]]; then
    arguments+=(--build-arg APT=openjdk-17-jre-headless)
  fi
  act docker build --target=tpu --file="$root/launch/Dockerfile" ${arguments[@]+"${arguments[@]}"} \
    --tag="$image" "$root"
  act docker push "$image"
fi
# exec: xpk sends SIGTERM to the shell that it starts the command in.
run=$(printf '%q ' exec python -m eef_jax.main --cluster --workdir="$workdir" "$@")
options=(--zone="$zone")
[ -z "$project" ] || options+=(--project="$project")
if [ "${#variables[@]}" -gt 0 ]; then
  # Names alone: xpk takes the values from this terminal, so that none is on a command line or on the disk.
  folder=$(mktemp -d)
  trap 'rm -rf "$folder"' EXIT
  printf '%s\n' "${variables[@]}" >"$folder/env"
  options+=(--env-file="$folder/env")
fi
# xpk restarts on 42 and 127-255 anyway; named here, these hold if its defaults change.
act xpk workload create --cluster="$cluster" "${options[@]}" --workload="$name" --tpu-type="$type" \
  --num-slices="$slices" --docker-image="$image" --max-restarts="$restarts" \
  --restart-on-exit-codes=42,137,143 --command="$run"
