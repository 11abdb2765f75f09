#!/usr/bin/env bash
# A small model on text so regular that its MTP module guesses most tokens: what drafts gain at best.
# About two minutes on two cores, then 10,000 greedy tokens with and without drafts.
#
#   recipes/regular_text.sh [FOLDER]          (regular)
set -euo pipefail
cd "$(dirname "$0")/.."
minke=build/release/minke
folder=${1:-regular}
mkdir -p "$folder"

python3 - "$folder/corpus.jsonl" <<'END'
import json
import sys
words = ("the cat sat on a mat while seven red birds sang their old song to every quiet river under "
         "our pale moon").split()
with open(sys.argv[1], "w") as out:
    for k in range(400):
        sentence = " ".join(words[(7 * k + j * (1 + k % 5)) % len(words)] for j in range(9))
        text = "\n".join(f"{i}. {sentence}." for i in range(1, 40))
        out.write(json.dumps({"text": text}) + "\n")
END
[ -f "$folder/tokenizer/tokenizer.json" ] ||
  "$minke" train-tokenizer --data "$folder/corpus.jsonl" --vocab 400 --out "$folder/tokenizer"
"$minke" train recipes/demo.json --set "data.tokenizer=$folder/tokenizer" \
  --set "data.paths=$folder/corpus.jsonl" --set steps=200 --set eval_every=100 \
  --set model.num_hidden_layers=12 --out "$folder/model" --resume auto
tests/serve_draft_check.py "$minke" "$folder/model"
