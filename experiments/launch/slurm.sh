#!/usr/bin/env bash
#SBATCH --job-name=prompt-jax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
# One experiment on several nodes of a Slurm cluster, one process per GPU:
#
#   sbatch experiments/launch/slurm.sh run experiments/baselines.py:transfer suite=papers --mesh data=8 out=runs/glue
#
# JAX reads the step's variables, so nothing else names the processes. Two minutes before the time
# limit the processes get SIGTERM: they finish their step and save. Submit the same line again, or
# let a preempted job be requeued: it resumes. --kill-on-bad-exit ends the step once one process is
# lost and the others have reported it.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?submit this with sbatch from the checkout}"
[ $# -gt 0 ] || { echo "give a command of prompt-jax, for example: run quickstart" >&2; exit 2; }
exec srun --kill-on-bad-exit=1 "${VENV:-.venv}/bin/prompt-jax" "$@" --distributed on
