#!/usr/bin/env bash
# One experiment on a GKE cluster of TPU slices, through xpk (https://github.com/AI-Hypercomputer/xpk).
#
#   CLUSTER=my-cluster ZONE=us-east5-a TPU_TYPE=v5litepod-32 IMAGE=REGISTRY/prompt-jax:TAG \
#     bash experiments/launch/xpk.sh run quickstart --mesh data=32 out=/mnt/runs/quickstart
#
# IMAGE contains this package with its extra `tpu`. GKE gives each process the number of its host;
# the options here are what to run. `--max-restarts` starts all processes again after a loss or a
# preemption; they resume from the checkpoints, so `out=` has to be on a volume that outlives a pod
# (attach one to the cluster: `xpk storage`).
set -euo pipefail
: "${CLUSTER:?name of the cluster}" "${ZONE:?its zone}" "${TPU_TYPE:?as in v5litepod-32}" \
  "${IMAGE:?container image}"
[ $# -gt 0 ] || { echo "give a command of prompt-jax, for example: run quickstart" >&2; exit 2; }

exec xpk workload create \
  --cluster "$CLUSTER" --zone "$ZONE" --tpu-type "$TPU_TYPE" --num-slices 1 \
  --workload "${WORKLOAD:-prompt-jax-$(date +%m%d-%H%M)}" \
  --docker-image "$IMAGE" --max-restarts "${RESTARTS:-10}" \
  --command "prompt-jax $(printf '%q ' "$@") --distributed on"
