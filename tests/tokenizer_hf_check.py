#!/usr/bin/env python3
"""Trains a tokenizer with minke and compares its ids with Hugging Face's `tokenizers`.

usage: tokenizer_hf_check.py MINKE TEXT [TEXT...]      TEXT: .jsonl with "text", .txt or folders

Exit 0 when all texts agree; 77 (skipped) with a reason when `tokenizers` cannot be imported.
"""
import json
import pathlib
import random
import subprocess
import sys
import tempfile

try:
    import tokenizers
except ImportError as error:
    print(f"skipped: {error}; install it with: pip install tokenizers")
    sys.exit(77)


def documents(path):
    if path.is_dir():
        for name in sorted(path.rglob("*")):
            if name.suffix in (".jsonl", ".txt"):
                yield from documents(name)
    elif path.suffix == ".jsonl":
        for line in path.read_text(encoding="utf-8").split("\n"):
            if line:
                yield json.loads(line)["text"]
    else:
        yield path.read_text(encoding="utf-8")


def random_text(draw):
    """Letters of few kinds: runs of them are what splitting and merging can get wrong."""
    pools = [lambda: chr(draw.randrange(0x3030, 0x3110)), lambda: chr(draw.randrange(0x4E00, 0x9FFF)),
             lambda: draw.choice(" \n\r\t  "), lambda: draw.choice("abcXYZ'!?.-$_<>|"),
             lambda: str(draw.randrange(10)), lambda: chr(draw.randrange(1, 0x300)),
             lambda: draw.choice(["<｜User｜>", "<｜", "｜>", "<|EOT|>", "<｜▁pad▁｜>"]),
             lambda: chr(draw.randrange(0x1F000, 0x20000))]
    chosen = draw.sample(pools, draw.randrange(1, 5))
    return "".join(draw.choice(chosen)() for _ in range(draw.randrange(40)))


def main():
    minke, paths = sys.argv[1], sys.argv[2:]
    texts = [t for p in paths for t in documents(pathlib.Path(p))]
    draw = random.Random(1)
    texts += [random_text(draw) for _ in range(3000)]
    with tempfile.TemporaryDirectory() as out:
        subprocess.run([minke, "train-tokenizer", "--data", *paths, "--vocab", "4096", "--out", out],
                       check=True)
        reference = tokenizers.Tokenizer.from_file(f"{out}/tokenizer.json")
        lines = "".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in texts)
        answer = subprocess.run([minke, "tokenize", "--model", out], input=lines.encode(),
                                stdout=subprocess.PIPE, check=True).stdout.decode()
        ids = [json.loads(line)["ids"] for line in answer.split("\n") if line]
    assert len(ids) == len(texts), f"{len(texts)} texts, {len(ids)} answers"
    wrong = 0
    for text, got in zip(texts, ids):
        want = reference.encode(text).ids
        if want != got:
            wrong += 1
            if wrong <= 5:
                print(f"FAIL {text[:80]!r}: {want[:20]} expected, found {got[:20]}")
        elif reference.decode(got, skip_special_tokens=False) != text:
            wrong += 1
            print(f"FAIL {text[:80]!r} does not come back")
    print(f"tokenizers {tokenizers.__version__}: {len(texts) - wrong} of {len(texts)} texts agree")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
