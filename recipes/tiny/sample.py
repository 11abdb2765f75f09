#!/usr/bin/env python3
"""A part of a corpus for the tokenizer to learn from: about one document in eight of each source.

  recipes/tiny/sample.py FOLDER OUT.jsonl

Takes FOLDER/*.jsonl but the dialogues, English first. Deterministic.
"""
import pathlib
import random
import sys

RATES = {"chinese-poetry": 0.14}  # verse is short: a little more of it, so that rare characters are seen
RATE = 0.12


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    draw, english, chinese = random.Random(7), [], []
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*.jsonl")):
        if path.stem == "dialogue":
            continue
        taken = chinese if path.stem in RATES else english
        with path.open(encoding="utf-8") as file:
            taken += [line for line in file if draw.random() < RATES.get(path.stem, RATE)]
    pathlib.Path(sys.argv[2]).write_text("".join(english + chinese), encoding="utf-8")


if __name__ == "__main__":
    main()
