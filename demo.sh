#!/usr/bin/env bash
# From nothing to a small trained model that writes: installs what is needed, builds, trains a
# tokenizer and a DeepSeek-V3 model on the text in corpus/, and prints samples. About eight minutes on two
# cores. Ctrl-C is safe: run it again to go on where it stopped. To begin anew: rm -r demo
set -euo pipefail
cd "$(dirname "$0")"

minke=build/release/minke
model=demo/model
tokenizer=demo/tokenizer

step() { printf '\n== %s\n' "$*"; }

step "packages"
./tools/install_dependencies.sh

step "build"
cmake --preset release >/dev/null
cmake --build --preset release --target minke --parallel "$(./tools/build_jobs.sh)"
"$minke" info --cpu

mkdir -p demo
if [ ! -f "$tokenizer/tokenizer.json" ]; then
  step "tokenizer"
  "$minke" train-tokenizer --data corpus --vocab 6144 --out "$tokenizer"
fi

step "training (Ctrl-C leaves a checkpoint; ./demo.sh goes on from it)"
status=0
"$minke" train recipes/demo.json --set "data.tokenizer=$tokenizer" --out "$model" --resume auto || status=$?
if [ "$status" -ne 0 ]; then
  [ "$status" -ne 130 ] || echo "Stopped. ./demo.sh goes on from the checkpoint."
  exit "$status"
fi

sample() {
  step "sample: $1"
  local text
  text=$("$minke" generate --model "$model" --prompt "$1" --max-tokens 120 --temperature 0.7 --seed 1)
  printf '%s%s\n' "$1" "$text"
}
# A psalm and a poem that nobody wrote: the corpus has 150 psalms and 320 Tang poems.
sample "Psalm 151"
sample "秋夜 李白"

cat <<END

The model is in $model, laid out as Hugging Face does. How to go on:

  $minke generate --model $model --prompt "Psalm 151" --max-tokens 200
  $minke chat --model $model
  $minke serve --model $model        # then http://127.0.0.1:8080 in a browser, or any OpenAI client
  $minke eval --task bpb --model $model --data corpus/zh/lunyu.jsonl --out demo/bpb.json
  $minke info --model $model

  your own text:   $minke train recipes/demo.json --set data.paths=FILE_OR_FOLDER --out my-model
  other sizes:     $minke train --help        (every setting of a recipe, with its default)
END
