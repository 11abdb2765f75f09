# Read by fp8.sh, balance.sh and mtp.sh: where their runs are, and how one is made.
#
#   FOLDER   runs/results          runs, shared by the three scripts: base is trained once
#   SEEDS    1 2 3                 all variants have the same seeds, data and steps
#   STEPS    600
#   MINKE    build/release/minke
#   DATA, TOKENIZER                other text, or what `minke data` made, with its tokenizer; without
#                                  them recipes/text.sh makes both in FOLDER/text
#   RECIPE   recipes/results/base.json
#
# A run that is finished is not run again, one that was interrupted goes on from its checkpoint.
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
FOLDER=${FOLDER:-runs/results}
SEEDS=${SEEDS:-1 2 3}
STEPS=${STEPS:-600}
MINKE=${MINKE:-build/release/minke}
TOKENIZER=${TOKENIZER:-$FOLDER/text/tokenizer}
RECIPE=${RECIPE:-recipes/results/base.json}

mkdir -p "$FOLDER"
if [ -z "${DATA:-}" ]; then
  DATA=$FOLDER/shards
  if [ ! -d "$DATA" ]; then
    MINKE=$MINKE recipes/text.sh "$FOLDER/text" 4096
    "$MINKE" data --in "$FOLDER/text/text" --tokenizer "$TOKENIZER" --held-out-fraction 0.013 --out "$DATA"
  fi
fi

# variant NAME [SETTING=VALUE ...]: the base recipe with these settings, once for each seed.
variant() {
  local name=$1 seed setting settings=()
  shift
  for setting in "$@"; do settings+=(--set "$setting"); done
  for seed in $SEEDS; do
    python3 tools/result_runs.py train "$FOLDER/$name-$seed" -- "$MINKE" train "$RECIPE" \
      --set "seed=$seed" --steps "$STEPS" --set "data.paths=$DATA" \
      --set "data.tokenizer=$TOKENIZER" "${settings[@]}" --out "$FOLDER/$name-$seed"
  done
}

# results TABLE VARIANT...: prints the table, writes it, its picture and the page of all runs into FOLDER.
results() {
  local table=$1 name seed runs=()
  shift
  for name in "$@"; do
    for seed in $SEEDS; do runs+=("$FOLDER/$name-$seed"); done
  done
  "$MINKE" report "${runs[@]}" --out "$FOLDER/$table.html" >"$FOLDER/$table.txt"
  python3 tools/result_runs.py "$table" "$FOLDER" | tee "$FOLDER/$table.md"
  python3 tools/result_plots.py "$table" "$FOLDER" "$FOLDER/$table.svg"
}
