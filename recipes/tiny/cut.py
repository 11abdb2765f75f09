#!/usr/bin/env python3
"""Long documents as parts that fit a small model's context, cut between paragraphs.

  recipes/tiny/cut.py FOLDER OUT [--left-out SOURCE,...]

FOLDER/*.jsonl -> OUT/*.jsonl with the same keys. A document of more than MOST bytes becomes parts of about
PART bytes, each a document of its own: otherwise one manual of 300 KB is fifty steps of training on end,
and one held-out manual most of the held-out text.
"""
import argparse
import json
import pathlib
import re

PART, MOST = 5000, 7000


def pieces(text):
    """Paragraphs with the blank lines behind them, long ones by lines, longer ones as they are."""
    for paragraph in re.findall(r".*?(?:\n\s*\n|\Z)", text, re.DOTALL):
        if len(paragraph.encode()) <= MOST:
            yield paragraph
        else:
            yield from paragraph.splitlines(keepends=True)


def parts(text):
    if len(text.encode()) <= MOST:
        return [text]
    done, part, size = [], [], 0
    for piece in pieces(text):
        length = len(piece.encode())
        if part and size + length > PART:
            done.append("".join(part))
            part, size = [], 0
        part.append(piece)
        size += length
    return done + ["".join(part)]


def main():
    flags = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    flags.add_argument("folder", type=pathlib.Path)
    flags.add_argument("out", type=pathlib.Path)
    flags.add_argument("--left-out", default="", help="sources that are not taken")
    args = flags.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for path in sorted(args.folder.glob("*.jsonl")):
        if path.stem in args.left_out.split(","):
            continue
        with path.open(encoding="utf-8") as file, (args.out / path.name).open("w", encoding="utf-8") as out:
            for line in file:
                document = json.loads(line)
                for text in parts(document["text"]):
                    if text.strip():
                        out.write(json.dumps({**document, "text": text}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
