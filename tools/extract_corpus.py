#!/usr/bin/env python3
"""Makes corpus/en and corpus/zh: the public-domain text that demo.sh and the tests train on.

  tools/extract_corpus.py --debs DIR --poetry DIR [--out corpus]

The files are in the repository, so nobody has to run this; it documents where every byte is from.

  mkdir debs && cd debs && apt-get download bible-kjv bible-kjv-text dict-devil
  npm pack chinese-poetry@2.0.1 && mkdir poetry && tar xzf chinese-poetry-2.0.1.tgz -C poetry --strip-components=1

Output: one JSONL file a work, one document a line, {"text", "source"}. A document is a chapter, a
dictionary entry, or a poem. Deterministic; standard library only (and dpkg-deb).
"""
import argparse
import glob
import gzip
import json
import os
import re
import subprocess
import tempfile

# Books of the King James Bible: file name, name in the title, the reader's abbreviation.
BOOKS = [
    ("genesis", "Genesis", "Ge"), ("ruth", "Ruth", "Ruth"), ("job", "Job", "Job"),
    ("psalms", "Psalm", "Psa"), ("proverbs", "Proverbs", "Prv"),
    ("ecclesiastes", "Ecclesiastes", "Eccl"), ("jonah", "Jonah", "Jonah"),
    ("matthew", "Matthew", "Mat"), ("mark", "Mark", "Mark"), ("luke", "Luke", "Luke"),
    ("john", "John", "John"),
]


def clean(text):
    text = text.replace("\r\n", "\n").replace("\ufeff", "").replace("\u00ad", "")
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", text)
    text = re.sub(r"[ \t\u3000]+\n", "\n", text)
    text = re.sub(r" {9,}", " " * 8, text)  # verses' attributions are set far to the right
    return re.sub(r"\n{3,}", "\n\n", text).strip("\n") + "\n"


def write(out, name, source, documents):
    path = os.path.join(out, name + ".jsonl")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    seen, count, size = set(), 0, 0
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for text in map(clean, documents):
            if not text.strip() or text in seen:
                continue
            seen.add(text)
            line = json.dumps({"text": text, "source": source}, ensure_ascii=False)
            file.write(line + "\n")
            count, size = count + 1, size + len(text.encode())
    print(f"{path}: {count} documents, {size} bytes of text")


def unpack(debs, directory):
    for deb in sorted(glob.glob(os.path.join(debs, "*.deb"))):
        subprocess.run(["dpkg-deb", "-x", deb, directory], check=True)


def bible(root):
    """{abbreviation: {chapter: [verse]}}, as the package's own reader prints it."""
    reader = [f"{root}/usr/bin/bible", "-f", "-p", f"{root}/usr/lib/", "gen1:1-rev22:21"]
    printed = subprocess.run(reader, capture_output=True, text=True, check=True).stdout
    books = {}
    for line in printed.splitlines():
        match = re.match(r"(\d?[A-Za-z]+?)(\d+):\d+ (.*)", line)
        if match:
            books.setdefault(match[1], {}).setdefault(int(match[2]), []).append(match[3])
    return books


def dictionary(root, name):
    """The entries of a dictd dictionary in the order of the text."""
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

    def number(text):
        value = 0
        for letter in text:
            value = value * 64 + digits.index(letter)
        return value

    with gzip.open(f"{root}/usr/share/dictd/{name}.dict.dz") as file:
        data = file.read()
    places = set()
    with open(f"{root}/usr/share/dictd/{name}.index", encoding="utf-8") as file:
        for line in file:
            word, offset, length = line.rstrip("\n").split("\t")
            if not word.startswith("00"):
                places.add((number(offset), number(length)))
    return [data[a:a + n].decode("utf-8") for a, n in sorted(places)]


def heading(*parts):
    return " ".join(p.strip() for p in parts if p and p.strip())


def chapters(items):
    """Prose: a heading, then a paragraph a line."""
    for item in items if isinstance(items, list) else [items]:
        yield "\n".join([item["chapter"]] + item["paragraphs"])


def songs(items):
    for item in items:
        title = heading(item.get("chapter"), item.get("section"), item["title"], item.get("author"))
        yield "\n".join([title] + item["content"])


def tang(book):
    for group in book["content"]:
        for poem in group["content"]:
            title = heading(poem["chapter"], poem["subchapter"], poem["author"])
            yield "\n".join([title] + poem["paragraphs"])


def essays(book):
    for volume in book["content"]:
        for essay in volume["content"]:
            title = heading(essay["chapter"], essay.get("source"), essay["author"])
            yield "\n".join([title] + essay["paragraphs"])


def primer(book):
    """Four short lines are joined into one line of the document."""
    lines = book["paragraphs"]
    if max(map(len, lines)) <= 4:
        lines = ["，".join(lines[i:i + 4]) + "。" for i in range(0, len(lines), 4)]
    yield "\n".join([heading(book["title"], book["author"])] + lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--debs", required=True, help="folder with the three .deb files")
    parser.add_argument("--poetry", required=True, help="unpacked npm package chinese-poetry 2.0.1")
    parser.add_argument("--out", default="corpus")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as root:
        unpack(args.debs, root)
        books = bible(root)
        for name, title, short in BOOKS:
            documents = (
                "\n".join([f"{title} {n}"] + verses) for n, verses in sorted(books[short].items()))
            write(args.out, f"en/kjv-{name}", "kjv", documents)
        write(args.out, "en/devils-dictionary", "devils-dictionary", dictionary(root, "devil"))

    def load(name):
        with open(os.path.join(args.poetry, "dist", name + ".json"), encoding="utf-8") as file:
            return json.load(file)

    write(args.out, "zh/lunyu", "lunyu", chapters(load("lunyu/lunyu")))
    for name in ("daxue", "mengzi", "zhongyong"):
        write(args.out, f"zh/{name}", "sishu", chapters(load(f"sishuwujing/{name}")))
    write(args.out, "zh/shijing", "shijing", songs(load("shijing/shijing")))
    write(args.out, "zh/chuci", "chuci", songs(load("chuci/chuci")))
    write(args.out, "zh/tangshisanbaishou", "tangshi", tang(load("mengxue/tangshisanbaishou")))
    write(args.out, "zh/guwenguanzhi", "guwenguanzhi", essays(load("mengxue/guwenguanzhi")))
    for name, file in (("qianziwen", "qianziwen"), ("sanzijing", "sanzijing-traditional")):
        write(args.out, f"zh/{name}", "primers", primer(load(f"mengxue/{file}")))


if __name__ == "__main__":
    main()
