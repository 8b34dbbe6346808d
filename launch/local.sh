#!/usr/bin/env bash
# Runs several processes of one run on this machine, to try out multi-process behaviour.
#
#   launch/local.sh [--dry-run] [--processes=2] [--port=8476] -- --config=... --workdir=...
#
# All processes write to this terminal. PYTHON selects the interpreter. The exit code is that of the process
# that failed by itself; 42, which asks for a restart, if the others only lost it. Ctrl-C ends all of them.
set -euo pipefail

dry_run=false processes=2 port=8476
while [ $# -gt 0 ]; do
  case "$1" in
    --dry-run) dry_run=true ;;
    --processes=*) processes=${1#*=} ;;
    --port=*) port=${1#*=} ;;
    --) shift; break ;;
    *) echo "unknown option $1: see the top of $0 for its options; flags of the run come after --" >&2; exit 2 ;;
  esac
  shift
done

# Bash lets the background processes of a script ignore Ctrl-C, unless they are jobs of their own.
set -m
pids=()
told=0
# The first process tells the others.
# shellcheck disable=SC2329 # the traps call it
tell() {
  told=$2
  kill -"$1" "${pids[0]}" 2>/dev/null || true
}
trap 'tell INT 130' INT
trap 'tell TERM 143' TERM

for ((process = 0; process < processes; process++)); do
  command=("${PYTHON:-python}" -m eef_jax.main --coordinator="127.0.0.1:$port"
    --processes="$processes" --process="$process" "$@")
  if $dry_run; then
    printf '%q ' "${command[@]}"
    echo '&'
  else
    "${command[@]}" &
    pids+=($!)
  fi
done

# If one process fails, the others end as well: wait for all of them.
code=0
for pid in ${pids[@]+"${pids[@]}"}; do
  ended=0
  wait "$pid" || ended=$?
  # A signal to this script ends the wait, not the process.
  while [ "$told" -ne 0 ] && kill -0 "$pid" 2>/dev/null; do wait "$pid" || ended=$?; done
  if [ "$code" -eq 0 ] || [ "$code" -eq 42 ]; then code=$ended; fi
done
if [ "$told" -ne 0 ]; then code=$told; fi
exit "$code"
