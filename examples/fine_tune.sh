#!/usr/bin/env bash
# Fine-tunes a model on a folder of one's own lines and makes a model folder of it that the server reads.
#   examples/fine_tune.sh FOLDER START OUT [MINUTES]
# FOLDER holds labels.tsv (image TAB text) and the images. START is what to begin from: a model folder, such as
# server/longhand_server/models/en, or a training run's best.pt. Language models and decoder settings are those of START,
# or for a best.pt those of LIKE (by default the model that Longhand comes with; LIKE= takes none, as it must be where
# the alphabets differ).
set -euo pipefail
usage="usage: examples/fine_tune.sh FOLDER START OUT [MINUTES]"
folder=${1:?$usage} start=${2:?$usage} out=${3:?$usage} minutes=${4:-20}
python=${PYTHON:-python3}
shipped=$(dirname "$0")/../server/longhand_server/models/en
if [ -d "$start" ]; then like=${LIKE-$start}; else like=${LIKE-$shipped}; fi

"$python" -m longhand_training.train --folder "$folder" --init "$start" --out "$out/run" \
    --minutes "$minutes" ${TRAIN_ARGS:-}
"$python" -m longhand_training.export "$out/run/best.pt" ${like:+--like "$like"} --folder "$folder" --out "$out/model" \
    --name mine --version 1
echo "serve it with: $python -m longhand_server --model $out/model"
