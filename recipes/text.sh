#!/usr/bin/env bash
# English and Chinese text in the form that small models learn from, and its tokenizer: the corpus of
# corpus.sh, verse in simplified characters, long documents cut, and a tokenizer of a sample of it.
# What recipes/tiny/make.sh and recipes/results/ train on. What is there is not made again.
#
#   recipes/text.sh FOLDER VOCAB          FOLDER/corpus, FOLDER/text, FOLDER/tokenizer; 2 GB of disk
#
# Needs what recipes/corpus.sh needs, npm and Debian's opencc; MINKE [build/release/minke].
set -euo pipefail
recipes=$(cd "$(dirname "$0")" && pwd)
minke=${MINKE:-$recipes/../build/release/minke}
[ $# -eq 2 ] || { echo "usage: recipes/text.sh FOLDER VOCAB" >&2; exit 2; }
folder=$1 vocab=$2

for program in "$minke" npm opencc python3; do
  command -v "$program" >/dev/null || {
    echo "$program was not found; needed: a built minke, and apt-get install npm opencc" >&2
    exit 1
  }
done

[ -d "$folder/text" ] || "$recipes/corpus.sh" "$folder/corpus"
[ -f "$folder/corpus/chinese-poetry.jsonl" ] || { echo "chinese-poetry.jsonl is missing in $folder/corpus" >&2; exit 1; }
# One script: the verse is in traditional characters, readers of both scripts read simplified ones, and a
# small model sees every character more often.
# Left out: the Ada manual, whose text stands there twice, with notes and without.
if [ ! -d "$folder/text" ]; then
  rm -rf "$folder/whole" "$folder/text.partial"
  mkdir "$folder/whole" && cp "$folder"/corpus/*.jsonl "$folder/whole"
  opencc -c t2s -i "$folder/corpus/chinese-poetry.jsonl" -o "$folder/whole/chinese-poetry.jsonl"
  "$recipes/tiny/cut.py" "$folder/whole" "$folder/text.partial" --left-out ada-reference-manual-2012
  rm -r "$folder/whole"
  mv "$folder/text.partial" "$folder/text"
fi

if [ ! -f "$folder/tokenizer/tokenizer.json" ]; then
  "$recipes/tiny/sample.py" "$folder/text" "$folder/sample.jsonl"
  "$minke" train-tokenizer --data "$folder/sample.jsonl" --vocab "$vocab" --out "$folder/tokenizer"
fi
