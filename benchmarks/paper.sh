#!/usr/bin/env bash
# The paper's tables in miniature: runs, studies and branches of five seeds.
#
#   benchmarks/paper.sh runs/paper [CONFIG]
#   SEEDS="0 1" benchmarks/paper.sh runs/paper  # two of them
#
# Hours on two CPU cores. Ended at any moment, it goes on where it was. An ORM
# and a PQM make as many updates as the PPM of 540 pairs.
set -euo pipefail

root="${1:?give a folder, such as runs/paper}"
config="${2:-configs/tiny.py}"
most="${TRAJECTORIES:-64}"
python="${PYTHON:-.venv/bin/python}"
read -ra seeds <<<"${SEEDS:-0 1 2 3 4}"

main() {
  local workdir="$1" seed="$2"
  shift 2
  "$python" -m rstar_jax.main --config="$config" --workdir="$workdir" \
    --config.seed="$seed" --config.eval.early_problems=100 "$@"
}

for seed in "${seeds[@]}"; do
  run="$root/$seed"
  main "$run" "$seed" # Tables 2, 3 and 6
  # Table 8 and Figure 3.
  main "$run" "$seed" --stage=study --round=4 \
    --config.study.trajectories="$most" --config.study.samples="$most" \
    --config.study.rewards='("ppm", "orm", "pqm")' \
    --config.study.updates=540 \
    --config.study.methods='("greedy","samples","mcts","beam","diverse_beam")'
  # Table 4: the policy of round 1 with each round's PPM.
  main "$run" "$seed" --stage=study --round=1 \
    --config.study.trajectories=8 --config.study.methods='("greedy", "mcts")' \
    --config.study.rewards="('ppm', 'ppm:$run/round_2/ppm',
      'ppm:$run/round_3/ppm', 'ppm:$run/round_4/ppm')"
  # Table 7: the last policy from other solutions of the same trees.
  for choice in random all reward; do
    other="$run-$choice"
    options=(--round=4 "--config.extract.sft_choice=$choice"
      "--config.study.trajectories=$most" "--config.study.rewards=()"
      "--config.study.methods=('greedy',)")
    main "$other" "$seed" "${options[@]}" --stage=branch --other="$run"
    for stage in extract sft study; do
      main "$other" "$seed" "${options[@]}" --stage="$stage"
    done
  done
done

learnt=()
for choice in random all reward; do
  folders="$(printf ",$root/%s-$choice" "${seeds[@]}")"
  learnt+=("--learnt=$choice=${folders:1}")
done
"$python" -m benchmarks.paper "${seeds[@]/#/$root/}" "${learnt[@]}" \
  --figure="$root/figure3"
