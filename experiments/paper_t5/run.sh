#!/bin/sh
# The paper's main table: six sweeps of T5, and one report of all.
#
#   sh experiments/paper_t5/run.sh
#
# Arguments go to every sweep; RUNS is the folder of the results (runs/paper).
# Said again, it goes on where it was stopped.
set -eu
runs=${RUNS:-runs/paper}
for pair in small_large small_xl; do
  for task in wmt14_en_de xsum cnn_dailymail; do
    speccascade sweep --gin_file=configs/paper/t5_$pair/$task.gin \
      --gin.RUN_DIR="'$runs/t5_$pair/$task'" "$@"
  done
done
speccascade report "$runs"/t5_small_*/* --output="$runs/t5" \
  --expected=experiments/paper_t5/expected.json
