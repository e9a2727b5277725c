#!/usr/bin/env bash
# Trains with several processes: one per GPU, or on the CPU where there is none.
#     tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
# Several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each of them.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [options of tools/train.py]" >&2
    exit 2
fi
CONFIG=$1
GPUS=$2
TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
NNODES=${NNODES:-1}
# Machines must agree on the port; on one machine a random one lets several runs share it.
[ "$NNODES" -gt 1 ] && PORT=${PORT:-29500} || PORT=${PORT:-$((20000 + RANDOM % 10000))}

PYTHONPATH="$TOOLS/..:${PYTHONPATH:-}" exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "$NNODES" --node-rank "${NODE_RANK:-0}" --nproc-per-node "$GPUS" \
    --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "$PORT" \
    "$TOOLS/train.py" "$CONFIG" --launcher pytorch "${@:3}"
