#!/bin/bash
# A Ray cluster over the nodes of a Slurm allocation, with `tincture serve` on the first of them; see docs/cluster.md.
#   sbatch --nodes 4 --gpus-per-node 2 deploy/slurm-cluster.sh /shared/workspace
# TINCTURE_AUTH or TINCTURE_TOKEN must be set: other machines reach the server.
#SBATCH --job-name tincture
#SBATCH --ntasks-per-node 1
#SBATCH --cpus-per-task 8
#SBATCH --signal B:TERM@330
set -euo pipefail
workspace="${1:?give the workspace, on a folder that all nodes share}"
: "${TINCTURE_AUTH:-${TINCTURE_TOKEN:?set TINCTURE_AUTH or TINCTURE_TOKEN}}"

export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
[ -s ~/.ray/auth_token ] || ray get-auth-token --generate > /dev/null     # homes are shared; else copy it to each node
chmod 600 ~/.ray/auth_token

first="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
address="$(srun --nodes 1 --ntasks 1 --nodelist "$first" hostname --ip-address | cut -d ' ' -f 1):6379"
gpus="${SLURM_GPUS_ON_NODE:-0}"
common=(--num-cpus "$SLURM_CPUS_PER_TASK" --num-gpus "$gpus" --object-store-memory 100000000 --block)

srun --nodes 1 --ntasks 1 --nodelist "$first" --overlap \
    ray start --head --node-ip-address "${address%:*}" --port "${address#*:}" --include-dashboard=false "${common[@]}" &
sleep 10
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
    srun --nodes "$((SLURM_JOB_NUM_NODES - 1))" --ntasks "$((SLURM_JOB_NUM_NODES - 1))" --exclude "$first" --overlap \
        ray start --address "$address" "${common[@]}" &
fi
# TERM comes before the time is over: running jobs save, and go on in the next allocation.
srun --nodes 1 --ntasks 1 --nodelist "$first" --overlap \
    tincture serve --root "$workspace" --host 0.0.0.0 --ray "$address" --database "$HOME/.tincture-queue/jobs.sqlite3" &
server=$!
trap 'kill -TERM "$server"' TERM
wait "$server" || wait "$server"
