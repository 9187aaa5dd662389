#!/usr/bin/env bash
# This starts several workers on this machine, to try multi-worker training out:
#
#     train/launch/local.sh WORKERS RECIPE --run-dir DIR [further options of python -m train]
#
# The first worker's output is shown; those of the others are in DIR.worker_N.log. The exit status is
# that of the first worker that failed.
set -euo pipefail
workers=$1
shift
run_dir=""
for ((i = 1; i <= $#; i++)); do
  if [[ "${!i}" == "--run-dir" ]]; then next=$((i + 1)); run_dir="${!next}"; fi
done
[[ -n "$run_dir" ]] || { echo "local.sh: --run-dir DIR is needed, the same for all workers" >&2; exit 2; }
mkdir -p "$(dirname "$run_dir")"

port=${PORT:-29400}
addresses=""
for ((i = 0; i < workers; i++)); do addresses+="${addresses:+, }\"127.0.0.1:$((port + i))\""; done

pids=()
for ((i = workers - 1; i >= 0; i--)); do
  export TF_CONFIG="{\"cluster\": {\"worker\": [$addresses]}, \"task\": {\"type\": \"worker\", \"index\": $i}}"
  if ((i > 0)); then
    "${PYTHON:-python}" -m train "$@" --strategy multi_worker > "$run_dir.worker_$i.log" 2>&1 &
  else
    "${PYTHON:-python}" -m train "$@" --strategy multi_worker &
  fi
  pids+=($!)
done
# A signal that ends this script ends the workers as well, which save their state.
trap 'kill -TERM "${pids[@]}" 2>/dev/null' TERM INT
status=0
for pid in "${pids[@]}"; do wait "$pid" || { code=$?; ((status)) || status=$code; }; done
exit "$status"
