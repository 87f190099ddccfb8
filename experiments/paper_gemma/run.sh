#!/bin/sh
# The paper's few-shot tasks: sixteen sweeps of Gemma 2, and one report of all.
#
#   sh experiments/paper_gemma/run.sh --gin.sweep.run_programs=True
#
# Arguments go to every sweep; this one allows MBPP to run what the models wrote,
# without it MBPP is left out. RUNS is the folder of the results (runs/paper).
# Said again, it goes on where it was stopped.
set -eu
runs=${RUNS:-runs/paper}
tasks='wmt14_en_de_5shot cnn_dailymail_1shot gsm8k_8shot squad_v2_1shot
  web_questions_1shot natural_questions_1shot trivia_qa_1shot'
case "$*" in
  *run_programs=True* | *run_programs=*with_network*) tasks="$tasks mbpp_3shot" ;;
  *) echo 'Without --gin.sweep.run_programs=True, MBPP is left out.' >&2 ;;
esac
for pair in 2b_9b 2b_27b; do
  for task in $tasks; do
    speccascade sweep --gin_file=configs/paper/gemma_$pair/$task.gin \
      --gin.RUN_DIR="'$runs/gemma_$pair/$task'" "$@"
  done
done
speccascade report "$runs"/gemma_2b_*/* --output="$runs/gemma"
