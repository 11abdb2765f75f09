#!/usr/bin/env bash
# From nothing to a small model that writes: installs what is needed, builds, lets models/minke-tiny
# write and answer, then trains another one from scratch on the text in corpus/ and prints samples of it.
# About eight minutes on two cores. Ctrl-C is safe: run it again to go on where it stopped.
#
#   ./demo.sh             asks before it trains, where somebody can answer
#   ./demo.sh train       does not ask
#   ./demo.sh write       does not train
#
# To train anew: rm -r demo
set -euo pipefail
cd "$(dirname "$0")"

minke=build/release/minke
tiny=models/minke-tiny
model=demo/model
tokenizer=demo/tokenizer

what=${1:-ask}
case "$what" in
  ask | train | write) ;;
  *)
    echo "usage: ./demo.sh [train|write]" >&2
    exit 2
    ;;
esac

step() { printf '\n== %s\n' "$*"; }

step "packages"
./tools/install_dependencies.sh

step "build"
cmake --preset release >/dev/null
cmake --build --preset release --target minke --parallel "$(./tools/build_jobs.sh)"
"$minke" info --cpu

# sample MODEL PROMPT TOKENS
sample() {
  step "$1 goes on: $2"
  local text
  text=$("$minke" generate --model "$1" --prompt "$2" --max-tokens "$3" --temperature 0.7 --seed 1)
  printf '%s%s\n' "$2" "$text"
}

sample "$tiny" "In Python, a list is" 60
sample "$tiny" "秋夜" 60
step "talk with $tiny (minke chat --model $tiny)"
messages=$(mktemp)
trap 'rm -f "$messages"' EXIT
for question in "Hello!" "Who are you?" "你是谁？" "早上好"; do
  printf '> %s\n' "$question"
  printf '%s\n' "$question" | "$minke" chat --model "$tiny" --temperature 0 --max-tokens 60 --no-history 2>"$messages" || {
    cat "$messages" >&2
    exit 1
  }
done

cat <<END

It has 18 million parameters: it knows how to answer, and few facts. How to go on:

  $minke chat --model $tiny
  $minke serve --model $tiny          # then http://127.0.0.1:8080 in a browser, or any OpenAI client
  $minke generate --model $tiny --prompt "The sea"
  $minke info --model $tiny           # what it was trained on: $tiny/README.md

END

if [ "$what" = ask ] && [ -t 0 ] && [ -t 1 ]; then
  read -r -p "Train a model from scratch now, on corpus/, in about four minutes? [Y/n] " answer
  case "$answer" in
    [nN]*) what=write ;;
  esac
fi
if [ "$what" = write ]; then
  echo "./demo.sh train trains one from scratch."
  exit 0
fi

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

# A psalm and a poem that nobody wrote: the corpus has 150 psalms and 320 Tang poems.
sample "$model" "Psalm 151" 120
sample "$model" "秋夜 李白" 120

cat <<END

The model is in $model, laid out as Hugging Face does. How to go on:

  $minke generate --model $model --prompt "Psalm 151" --max-tokens 200
  $minke eval --task bpb --model $model --data corpus/zh/lunyu.jsonl --out demo/bpb.json
  $minke info --model $model

  your own text:   $minke train recipes/demo.json --set data.paths=FILE_OR_FOLDER --out my-model
  from $tiny:      $minke train recipes/tiny/long.json --init-from $tiny \\
                     --set data.tokenizer=$tiny --set data.mixture='[]' --set data.paths=FILE_OR_FOLDER --out my-model
  other sizes:     $minke train --help        (every setting of a recipe, with its default)
END
