#!/usr/bin/env python3
"""Bits per byte of a model and of two compressors on the same bytes, as a Markdown table.

  compression_table.py --model DIR --held-out FILE.jsonl --chinese SOURCE[,SOURCE] [--minke PROGRAM]

FILE.jsonl is what `minke data --held-out-text` writes: {"text", "source"} a line. Each source, and all
sources of a language together, is one file for `xz -9e` and for 7z's PPMd (order 16, 1 GiB): the texts one
after another. The model has each document alone (`minke eval --task bpb`), with nothing
seen before. A compressor carries nothing but its program, the model its weights: the last column says from
how many MB of such text on both together are smaller than what PPMd makes. Dialogues are left out: they
are made from rules.
"""
import argparse
import collections
import json
import os
import pathlib
import subprocess
import sys
import tempfile

LEFT_OUT = {"dialogue"}


def compressed(path, command, result):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return os.path.getsize(result)


def compressor_bits(text, folder):
    """(xz, PPMd) in bits per byte."""
    path = folder / "text"
    path.write_bytes(text)
    xz = compressed(path, ["xz", "-9e", "-k", "-f", path], folder / "text.xz")
    archive = folder / "text.7z"
    archive.unlink(missing_ok=True)
    ppmd = compressed(path, ["7z", "a", "-m0=PPMd:o=16:mem=1g", "-bso0", "-bsp0", archive, path], archive)
    return 8 * xz / len(text), 8 * ppmd / len(text)


def model_bits(minke, model, held_out, folder):
    """{source: (bytes, bits)} of `minke eval`."""
    out = folder / "bpb.json"
    subprocess.run([minke, "eval", "--task", "bpb", "--model", model, "--data", held_out, "--out", out], check=True,
                   stdout=subprocess.DEVNULL)
    scores = json.loads(out.read_text())
    return {score["source"]: (score["bytes"], score["bytes"] * score["bits_per_byte"]) for score in scores["sources"]}


def main():
    flags = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    flags.add_argument("--minke", default="build/release/minke")
    flags.add_argument("--model", required=True, type=pathlib.Path)
    flags.add_argument("--held-out", required=True, type=pathlib.Path)
    flags.add_argument("--chinese", required=True, help="sources that are Chinese; the others are English")
    args = flags.parse_args()

    texts = collections.defaultdict(list)
    with args.held_out.open(encoding="utf-8") as file:
        for line in file:
            document = json.loads(line)
            if document["source"] not in LEFT_OUT:
                texts[document["source"]].append(document["text"])
    size = sum(path.stat().st_size for path in args.model.iterdir())
    chinese = set(args.chinese.split(","))
    unknown = chinese - texts.keys()
    if unknown:
        sys.exit(f"{args.held_out} has no source {', '.join(sorted(unknown))}; it has {', '.join(sorted(texts))}")

    print("| source | documents | bytes | xz -9e | 7z PPMd | model | pays from, MB |")
    print("| --- | --: | --: | --: | --: | --: | --: |")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        scores = model_bits(args.minke, args.model, args.held_out, folder)

        def row(label, sources):
            text = "".join("".join(texts[source]) for source in sources).encode()
            xz, ppmd = compressor_bits(text, folder)
            scored, bits = (sum(scores[source][part] for source in sources) for part in (0, 1))
            gain = ppmd - bits / scored
            pays = f"{8 * size / gain / 1e6:.0f}" if gain > 0 else "never"
            print(f"| {label} | {sum(len(texts[source]) for source in sources)} | {len(text)} | {xz:.3f} | "
                  f"{ppmd:.3f} | {bits / scored:.3f} | {pays} |", flush=True)

        for source in sorted(texts):
            row(source, [source])
        row("**English**", sorted(texts.keys() - chinese))
        row("**Chinese**", sorted(chinese))
    print(f"\nThe model's directory: {size} bytes.")


if __name__ == "__main__":
    main()
