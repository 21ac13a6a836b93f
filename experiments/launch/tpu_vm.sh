#!/usr/bin/env bash
# One experiment on all hosts of a Cloud TPU slice (TPU VM, v4-16 and larger, or a single host).
#
#   TPU=my-slice ZONE=us-central2-b bash experiments/launch/tpu_vm.sh run quickstart --mesh data=8
#
# Installs this checkout on every host, then runs `prompt-jax ...` there. The hosts find each other
# by the metadata of the slice; process 0 alone prints and writes. Give `out=` a folder that
# survives the slice (a mounted bucket or disk) on the first host: checkpoints are saved in it, and
# the same command resumes from them. Every host needs the data: `data.root=` on a shared mount, or
# `prompt-jax tasks fetch` on each.
set -euo pipefail
: "${TPU:?name of the slice}" "${ZONE:?its zone}"
[ $# -gt 0 ] || { echo "give a command of prompt-jax, for example: run quickstart" >&2; exit 2; }
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

everywhere() { gcloud compute tpus tpu-vm ssh "$TPU" --zone "$ZONE" --worker=all --command "$1"; }

archive=$(mktemp --suffix .tar.gz)
trap 'rm -f "$archive"' EXIT
git archive --format tar.gz --output "$archive" HEAD
gcloud compute tpus tpu-vm scp "$archive" "$TPU:prompt_jax.tar.gz" --zone "$ZONE" --worker=all
everywhere "set -e; mkdir -p prompt_jax; tar xzf prompt_jax.tar.gz -C prompt_jax
  python3 -m venv --upgrade-deps prompt_jax/.venv
  prompt_jax/.venv/bin/pip install -q -e './prompt_jax[tpu]'"
everywhere "cd prompt_jax; .venv/bin/prompt-jax $(printf '%q ' "$@") --distributed on"
