#!/usr/bin/env bash
# A small model on text so regular that its MTP module guesses most tokens: what drafts gain at best.
# About four minutes on two cores, then 10,000 greedy tokens with and without drafts.
#
# Of 34 MB, so that it stays in cache, and with few experts, so that two tokens share most weights: with
# 16 experts of which a token takes 4 a two-token step with a draft costs 1.67 one-token steps, here 1.45.
#
#   recipes/regular_text.sh [FOLDER]          (regular)
set -euo pipefail
cd "$(dirname "$0")/.."
minke=${MINKE:-build/release/minke}
folder=${1:-regular}
mkdir -p "$folder"

python3 - "$folder/corpus.jsonl" <<'END'
import json
import sys
words = ("the cat sat on a mat while seven red birds sang their old song to every quiet river under "
         "our pale moon").split()
# The number of a line says its sentence: what comes next is never in doubt.
sentences = [" ".join(words[(7 * k + j * (1 + k % 5)) % len(words)] for j in range(9)) for k in range(10)]
text = "\n".join(f"{i % 60 + 1}. {sentences[i % 10]}." for i in range(16000))
with open(sys.argv[1], "w") as out:  # one document, so that the model does not learn to stop
    out.write(json.dumps({"text": text}) + "\n")
END
[ -f "$folder/tokenizer/tokenizer.json" ] ||
  "$minke" train-tokenizer --data "$folder/corpus.jsonl" --vocab 400 --out "$folder/tokenizer"
"$minke" train recipes/demo.json --set "data.tokenizer=$folder/tokenizer" \
  --set "data.paths=$folder/corpus.jsonl" --set steps=200 --set eval_every=100 \
  --set model.num_hidden_layers=12 --set model.hidden_size=512 --set model.intermediate_size=1408 \
  --set model.n_routed_experts=4 --set model.num_experts_per_tok=2 \
  --set data.sequence_length=1024 --set data.batch_size=2 --out "$folder/model" --resume auto
# Twelve beginnings out of the text, three lines each: without them the first word is a guess.
mapfile -t prompts < <(python3 -c '
import json, sys
lines = json.loads(open(sys.argv[1]).readline())["text"].split("\n")
for k in range(12):
    print("\\n".join(lines[5 * k:5 * k + 3]) + "\\n")' "$folder/corpus.jsonl")
tests/serve_draft_check.py "$minke" "$folder/model" --tokens 850 --prompts "${prompts[@]//\\n/$'\n'}"
