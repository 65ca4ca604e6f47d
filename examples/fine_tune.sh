#!/usr/bin/env bash
# Fine-tunes a model on a folder of one's own lines and serves it.
#   examples/fine_tune.sh FOLDER CHECKPOINT OUT [MINUTES]
# FOLDER holds labels.tsv (image TAB text) and the images, CHECKPOINT is a training run's best.pt.
set -euo pipefail
folder=$1 checkpoint=$2 out=$3 minutes=${4:-20}
python=${PYTHON:-python}

"$python" -m longhand_training.train --folder "$folder" --init "$checkpoint" --out "$out/run" \
    --minutes "$minutes" --learning-rate 3e-4 ${TRAIN_ARGS:-}
"$python" -m longhand_training.export "$out/run/best.pt" --out "$out/model" --name mine --version 1
echo "serve it with: $python -m longhand_server --model $out/model"
