#!/usr/bin/env bash
# What a launcher does on a machine: install, run a command that outlives the connection, follow it.
#
#   launch/worker.sh setup EXTRAS FLAGS...   .venv with the extras, and with those that the config needs
#   launch/worker.sh start COMMAND...        start in the background, instead of what was started before
#   launch/worker.sh follow                  print the output from its start, end with the exit code
#   launch/worker.sh state                   print running, ended CODE, or none
#   launch/worker.sh stop                    end what was started
#
# Runs in the current folder: run.log and run.exit hold output and exit code; variables of the command come
# from run.env, lines of NAME=VALUE, so that no key is on a command line.
set -euo pipefail

running() { [ -s run.pid ] && [ ! -e run.exit ] && kill -0 "$(cat run.pid)" 2>/dev/null; }

stop() {
  if running; then
    kill -TERM -- "-$(cat run.pid)" 2>/dev/null || true
    for ((second = 0; second < 30; second++)); do running || break; sleep 1; done
    kill -KILL -- "-$(cat run.pid)" 2>/dev/null || true
  fi
  rm -f run.pid run.exit
}

case "${1:-}" in
  setup)
    extras=$2
    python3 -m pip install --quiet --user uv 2>/dev/null || python3 -m pip install --quiet uv
    # A VM image's Python may be older than 3.11; uv installs one.
    [ -e .venv ] || python3 -m uv venv --quiet --python 3.12 .venv
    install() { python3 -m uv pip install --quiet --python .venv/bin/python --editable ".[$1]"; }
    install "$extras"
    more=$(.venv/bin/python -m eef_jax.config.extras "${@:3}")
    [ -z "$more" ] || install "$extras,$more"
    if [[ ",$more," == *,scienceworld,* || ",$more," == *,textworld-express,* ]]; then
      command -v java >/dev/null || sudo apt-get install -qq -y --no-install-recommends openjdk-17-jre-headless
    fi
    ;;
  start)
    shift
    stop
    : >run.log
    if [ -e run.env ]; then
      while IFS= read -r line; do export "${line?}"; done <run.env
    fi
    # shellcheck disable=SC2016 # the inner shell expands
    # setsid: the end of the connection sends its hangup to another session.
    setsid bash -c 'echo $$ >run.pid; code=0; "$@" >>run.log 2>&1 </dev/null || code=$?
      echo "$code" >run.exit.new; mv run.exit.new run.exit' run "$@" </dev/null >/dev/null 2>&1 &
    until [ -s run.pid ]; do sleep 0.1; done
    ;;
  follow)
    [ -e run.log ] || { echo "nothing was started in $PWD" >&2; exit 2; }
    tail -n +1 -F run.log 2>/dev/null &
    trap 'kill %1 2>/dev/null || true' EXIT
    while running; do sleep 1; done
    sleep 1 # tail prints the last lines
    [ -e run.exit ] || { echo "the run was killed: it left no exit code" >&2; exit 137; }
    exit "$(cat run.exit)"
    ;;
  state)
    if running; then
      echo running
    elif [ -e run.exit ]; then
      echo "ended $(cat run.exit)"
    elif [ -e run.pid ]; then
      echo "ended 137"
    else
      echo none
    fi
    ;;
  stop) stop ;;
  *)
    echo "expected setup, start, follow, state or stop: see the top of $0" >&2
    exit 2
    ;;
esac
