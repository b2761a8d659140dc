#!/bin/bash
# sbatch cluster/slurm.sh CONFIG [key=value …]: Ray over the nodes of one allocation, then the main job on it. Requeued after a preemption
# (or sent in again by hand) it goes on where it was: the store must be on a file system that all nodes share, or on an object store.
#SBATCH --job-name=self-train
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
set -euo pipefail

source "${VENV:-.venv}/bin/activate"
export RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token
# one token a job, readable by its owner only; a file and not the environment, which srun would show in the job's record
RAY_AUTH_TOKEN_PATH="$(mktemp -p "$HOME" .ray-token-XXXXXX)"
export RAY_AUTH_TOKEN_PATH
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' > "$RAY_AUTH_TOKEN_PATH"
trap 'rm -f "$RAY_AUTH_TOKEN_PATH"; kill $(jobs -p) 2>/dev/null || true' EXIT
trap 'exit 143' TERM

nodes=($(scontrol show hostnames "$SLURM_JOB_NODELIST"))
head_ip=$(srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" hostname --ip-address | awk '{print $1}')
port=$((20000 + SLURM_JOB_ID % 20000))

srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" \
    ray start --head --node-ip-address="$head_ip" --port="$port" --include-dashboard=false --block &
for node in "${nodes[@]:1}"; do
    srun --nodes=1 --ntasks=1 --nodelist="$node" ray start --address="$head_ip:$port" --block &
done
for _ in $(seq 60); do
    ready=$(RAY_ADDRESS="$head_ip:$port" python -c 'import ray; ray.init(logging_level="ERROR"); print(sum(n["Alive"] for n in ray.nodes()))' || echo 0)
    [ "$ready" -ge "${#nodes[@]}" ] && break
    sleep 5
done

# in the background, so that bash hears the signal that comes two minutes before the end
RAY_ADDRESS="$head_ip:$port" python -m jobs.self_train "$@" &
wait $!
