#!/usr/bin/env bash
# A study on a Ray cluster inside one Slurm job: sbatch examples/cluster/slurm.sh study.yaml
# SHARED is a folder that every node sees under the same path; it holds an environment with mergerisk[ray] (bin/activate),
# the study with its files, the hub's cache, and the run. Submit the job again to resume.
#SBATCH --job-name=mergerisk
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00
set -euo pipefail

: "${SHARED:?export SHARED, a folder that every node sees}"
study="${1:?give the study: sbatch slurm.sh study.yaml}"
# shellcheck disable=SC1091
source "$SHARED/environment/bin/activate"
export HF_HOME="$SHARED/hub" RAY_USAGE_STATS_ENABLED=0
# Who has no token does not get in: any code can be run on a Ray cluster. Earlier versions of Ray know no tokens.
RAY_AUTH_TOKEN="$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN

head="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
address="$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}'):6379"
room=(--num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --disable-usage-stats --block)

srun --nodes=1 --ntasks=1 --nodelist="$head" ray start --head --port=6379 "${room[@]}" &
for _ in $(seq 60); do
  ray health-check --address "$address" >/dev/null 2>&1 && break
  sleep 2
done
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  others=$((SLURM_JOB_NUM_NODES - 1))
  srun --nodes="$others" --ntasks="$others" --exclude="$head" ray start --address="$address" "${room[@]}" &
fi

mergerisk run "$study" --executor ray --address "$address" --store "$SHARED/store" --out "$SHARED/run" --shards 8
