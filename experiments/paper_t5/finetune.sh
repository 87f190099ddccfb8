#!/bin/sh
# The models of the paper's main table: nine fine-tunings of T5 v1.1.
#
#   sh experiments/paper_t5/finetune.sh
#
# Arguments go to each of them. Said again, it goes on where it was stopped.
set -eu
for size in small large xl; do
  for task in wmt14_en_de xsum cnn_dailymail; do
    speccascade train --gin_file=configs/paper/finetune/t5_$size/$task.gin "$@"
  done
done
