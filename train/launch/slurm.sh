#!/usr/bin/env bash
# This starts one worker a node, on all of its GPUs; from the checkout:
#
#     sbatch --nodes 2 train/launch/slurm.sh cifar10 --run-dir runs/cifar10/slurm
#
# The run directory is on a file system that all nodes see. When the time is up, Slurm sends SIGTERM
# in time to save the state (--signal), and the job is put back into the queue and goes on (--requeue).
#SBATCH --job-name=tfnvp
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
set -euo pipefail

worker() {
  local addresses="" host
  for host in $(scontrol show hostnames "$SLURM_JOB_NODELIST"); do
    addresses+="${addresses:+, }\"$host:${PORT:-29400}\""
  done
  export TF_CONFIG="{\"cluster\": {\"worker\": [$addresses]}, \"task\": {\"type\": \"worker\", \"index\": $SLURM_PROCID}}"
  exec "${PYTHON:-.venv/bin/python}" -m train "$@" --strategy multi_worker
}
export -f worker

# A run that had begun goes on when the job was put back into the queue.
run_dir=""
for ((i = 1; i < $#; i++)); do
  if [[ "${!i}" == "--run-dir" ]]; then next=$((i + 1)); run_dir="${!next}"; fi
done
if ((${SLURM_RESTART_COUNT:-0})) && [[ -e "$run_dir/config.json" ]]; then set -- "$@" --resume; fi
srun bash -c 'worker "$@"' worker "$@"
