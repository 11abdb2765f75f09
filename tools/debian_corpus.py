#!/usr/bin/env python3
"""Text of Debian packages (and of npm's chinese-poetry) as JSON lines, for recipes/corpus.sh.

  tools/debian_corpus.py list [--all]                  packages to download, one a line
  tools/debian_corpus.py extract OUT --debs DIR [--all] [--poetry DIR]
  tools/debian_corpus.py table OUT                     documents and MB by source and licence

A line is {"text", "source", "path", "licence"}; a source is a package and has a file of its own,
OUT/SOURCE.jsonl, which appears whole: a second run goes on with the sources that are missing.
Without --all only sources whose licence lets the text be passed on under its notice are taken; the
others (share-alike, GPL, unclear) are for use where they are installed. Deterministic, standard
library only (and dpkg-deb).
"""
import argparse
import glob
import gzip
import html.parser
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

from extract_corpus import bible, clean, dictionary

SMALLEST = 40  # characters of a document


class Package(NamedTuple):
    name: str
    licence: str
    form: str  # how its text lies there: a key of FORMS
    free: bool = True  # may be passed on under its own notice
    only: str = ""  # regular expressions over paths
    but: str = "^$"
    needs: tuple = ()  # further packages


def bound(*package, **more):
    """A package whose text should be used where it is installed, not passed on with other files."""
    return Package(*package, free=False, **more)


PACKAGES = [
    # English prose and reference
    Package("bible-kjv-text", "public domain", "bible", needs=("bible-kjv",)),
    Package("dict-wn", "WordNet", "dictionary"),
    Package("dict-jargon", "public domain", "dictionary"),
    Package("dict-devil", "public domain", "dictionary"),
    bound("dict-gcide", "GPL-2+", "dictionary"),
    bound("dict-foldoc", "GFDL-1.1+", "dictionary"),
    bound("anarchism", "GPL-2+ or GFDL", "text"),
    bound("fortunes", "BSD, single texts unclear", "fortunes"),
    # English, technical
    Package("python3.11-doc", "PSF-2", "text", only="/_sources/"),
    Package("vim-runtime", "Vim", "text", only="/doc/"),
    Package("ada-reference-manual-2012", "Ada RM, permissive", "text"),
    Package("llvm-14-doc", "Apache-2.0-LLVM", "text", only="/_sources/"),
    Package("postgresql-doc-15", "PostgreSQL", "html"),
    Package("python-scipy-doc", "BSD-3", "html"),
    Package("python-sympy-doc", "BSD-3", "html"),
    Package("python-sklearn-doc", "BSD-3", "text"),
    Package("python-django-doc", "BSD-3", "html"),
    Package("sqlite3-doc", "public domain", "html"),
    Package("nodejs-doc", "MIT", "text"),
    Package("cmake-doc", "BSD-3", "text", only="/_sources/"),
    bound("linux-doc-6.1", "GPL-2", "text",
          but=r"/translations/(it_IT|ja_JP|ko_KR|sp_SP)|/_sources/|devicetree|/html/"),
    bound("cppreference-doc-en-html", "CC-BY-SA-3.0 or GFDL", "html"),
    bound("racket-doc", "MIT or LGPL", "html"),
    bound("perl-doc", "GPL-1+ or Artistic", "text", but=r"perl(jp|ko|cn|tw)\.pod"),
    bound("gap-doc", "GPL-2+", "html"),
    bound("maxima-doc", "GPL-2+", "html", but=r"/(de|es|ja|pt|pt_BR|ru)/|_(de|es|ja|pt)"),
    bound("octave-doc", "GPL-3+", "html"),
    bound("git-doc", "GPL-2", "text", but="RelNotes"),
    bound("manpages", "mixed, free", "man"),
    bound("manpages-dev", "mixed, free", "man"),
    bound("libreoffice-help-en-us", "MPL-2.0", "html"),
    bound("debian-policy", "GPL-2+", "text", only=r"policy\.txt|_sources"),
    bound("developers-reference", "GPL-2+", "text"),
    bound("debian-reference-en", "GPL-2+", "text"),
    bound("debian-faq", "GPL-2+", "text"),
    # Chinese, or in several languages
    bound("apache2-doc", "Apache-2.0", "html", only=r"/manual/(en|zh-cn)/"),
    bound("debian-handbook", "GPL-2+ or CC-BY-SA-3.0", "html", only="/(en-US|zh-CN|zh-TW)/"),
    bound("installation-guide-amd64", "GPL-2+", "text", only="/(en|zh_CN|zh_TW)/"),
    bound("manpages-zh", "GPL-2+ or GFDL", "man"),
    bound("libreoffice-help-zh-cn", "MPL-2.0", "html"),
    bound("libreoffice-help-zh-tw", "MPL-2.0", "html"),
    bound("fortunes-zh", "GPL-3+", "fortunes"),
    bound("debian-reference-zh-cn", "GPL-2+", "text"),
    bound("debian-reference-zh-tw", "GPL-2+", "text"),
    bound("debian-faq-zh-cn", "GPL-2+", "text"),
    bound("debian-edu-doc-zh-cn", "GPL-2+", "html"),
]
POETRY = Package("chinese-poetry", "MIT, texts public domain", "poetry")


class TextOfHtml(html.parser.HTMLParser):
    BLOCKS = frozenset("p div li tr h1 h2 h3 h4 h5 h6 br pre dt dd section table title blockquote"
                       .split())
    SKIPPED = frozenset("script style nav svg footer header form button".split())

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.parts, self.skipping = [], 0

    def handle_starttag(self, tag, attrs):
        if tag in self.SKIPPED:
            self.skipping += 1
        elif tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag):
        if tag in self.SKIPPED:
            self.skipping = max(0, self.skipping - 1)
        elif tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data):
        if not self.skipping:
            self.parts.append(data)


def text_of_html(page):
    parser = TextOfHtml()
    parser.feed(page)
    return "".join(parser.parts)


def text_of_man(page):
    """The words of a manual page: comments and requests go, the text on a request's line stays."""
    with_text = ("TH|SH|SS|TP|PP|LP|P|IP|RS|RE|B|I|BR|BI|IB|IR|RB|RI|nf|fi|br|sp|Sh|Nm|Nd|Dd|Dt|"
                 "Os|Ar|Fl|Op|Xr|Pa|Ql|Dl|Va|Ns|Li|Cm|Ev|Em|Bl|El|It|Pp")
    page = re.sub(r"^[.']\s*\\\".*$", "", page, flags=re.M)
    page = re.sub(rf"^\.({with_text})\b ?(.*)$", r"\2", page, flags=re.M)
    page = re.sub(r"^[.'][a-zA-Z]{1,2}\b.*$", "", page, flags=re.M)
    page = re.sub(r"\\f(\[[^\]]*\]|.)|\\s[-+]?\d", "", page)
    for written, meant in (("\\-", "-"), ("\\&", ""), ("\\e", "\\"), ("\\(aq", "'"), ("\\ ", " ")):
        page = page.replace(written, meant)
    return page


def read(path):
    with open(path, "rb") as file:
        data = file.read()
    if path.endswith((".gz", ".dz")):
        data = gzip.decompress(data)
    for encoding in ("utf-8", "gb18030"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            pass
    return data.decode("latin-1")


def files_of(root, package, pattern):
    """(path below root, text) of the package's files whose path matches, in order."""
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            below = "/" + os.path.relpath(path, root)
            if (os.path.islink(path) or name.startswith(("changelog", "copyright", "NEWS"))
                    or not re.search(pattern, below.removesuffix(".gz"))
                    or not re.search(package.only, below) or re.search(package.but, below)):
                continue
            yield below, read(path)


def texts(root, package):
    yield from files_of(root, package, r"(?i)\.(txt|rst|md|markdown|pod)$")


def pages(root, package):
    for path, text in files_of(root, package, r"\.x?html?(\.[a-z]{2}(-[a-z]{2})?)?(\.utf8)?$"):
        yield path, text_of_html(text)


def manuals(root, package):
    for path, text in files_of(root, package, r"/man/([^/]+/)?man\d/"):
        yield path, text_of_man(text)


def entries(root, package):
    """Consecutive entries of a dictionary, about 4,000 characters a document."""
    name = package.name.removeprefix("dict-")
    part = ""
    for entry in dictionary(root, name):
        part += entry.strip("\n") + "\n"
        if len(part) > 4000:
            yield name, part
            part = ""
    yield name, part


def sayings(root, _):
    folder = f"{root}/usr/share/games/fortunes"
    for path in sorted(glob.glob(folder + "/*")):
        if os.path.isfile(path) and not os.path.islink(path) and not path.endswith((".dat", ".u8")):
            for text in read(path).split("\n%\n"):
                yield "/" + os.path.relpath(path, root), text


def chapters(root, _):
    for book, verses in bible(root).items():
        for chapter, lines in sorted(verses.items()):
            yield f"{book} {chapter}", "\n".join([f"{book} {chapter}"] + lines)


def poems(root, _):
    def text_of(item):
        if isinstance(item, str):
            return item + "\n"
        if isinstance(item, list):
            return "".join(map(text_of, item))
        keys = ("title", "rhythmic", "chapter", "section", "author", "paragraphs", "content")
        return "".join(text_of(item[key]) for key in keys if key in item) if item else ""

    base = os.path.join(root, "dist") if os.path.isdir(os.path.join(root, "dist")) else root
    for path in sorted(glob.glob(base + "/**/*.json", recursive=True)):
        below = os.path.relpath(path, base)
        # tables of popularity and of tones, and a second edition of the Tang poems
        if below.startswith(("rank", "strains", "yudingquantangshi")):
            continue
        with open(path, encoding="utf-8") as file:
            try:
                found = json.load(file)
            except ValueError as error:
                print(f"left out: {below}: {error}", file=sys.stderr)
                continue
        for item in found if isinstance(found, list) else [found]:
            yield below, text_of(item)


FORMS = {"text": texts, "html": pages, "man": manuals, "dictionary": entries, "fortunes": sayings,
         "bible": chapters, "poetry": poems}


def is_chinese(text):
    count = sum("\u4e00" <= letter <= "\u9fff" for letter in text)
    return count > 20 and count > 0.08 * len(text)


def is_english(text):
    """By function words; what is too short to tell counts as English."""
    common = {"the", "of", "and", "to", "is", "a", "in", "for", "with", "by", "on", "n", "v"}
    words = re.findall(r"[a-z]+", text[:20000].lower())
    return len(words) < 40 or sum(word in common for word in words) > 0.06 * len(words)


def write_source(out, package, root):
    path = os.path.join(out, package.name + ".jsonl")
    count, size = 0, 0
    with open(path + ".partial", "w", encoding="utf-8", newline="\n") as file:
        for below, text in FORMS[package.form](root, package):
            text = clean(text)
            if len(text) < SMALLEST or not (is_chinese(text) or is_english(text)):
                continue
            file.write(json.dumps({"text": text, "source": package.name, "path": below,
                                   "licence": package.licence}, ensure_ascii=False) + "\n")
            count, size = count + 1, size + len(text.encode())
        file.flush()
        os.fsync(file.fileno())
    if count == 0:
        os.remove(path + ".partial")
        sys.exit(f"{package.name}: no text was found in {root}")
    os.replace(path + ".partial", path)
    print(f"{package.name}: {count} documents, {size / 1e6:.1f} MB", flush=True)


def unpack(debs, names, root):
    """False when a package was not downloaded."""
    for name in names:
        found = sorted(glob.glob(f"{debs}/{name}_*.deb"))
        if not found:
            print(f"left out: {names[0]}: {name} was not downloaded", file=sys.stderr)
            return False
        subprocess.run(["dpkg-deb", "-x", found[-1], root], check=True)
    return True


def extract(args):
    os.makedirs(args.out, exist_ok=True)
    for left in glob.glob(os.path.join(args.out, ".unpacked-*")):  # by a run that was killed
        shutil.rmtree(left)
    for package in chosen(args.all):
        if os.path.exists(os.path.join(args.out, package.name + ".jsonl")):
            continue
        with tempfile.TemporaryDirectory(dir=args.out, prefix=".unpacked-") as root:
            if unpack(args.debs, [package.name, *package.needs], root):
                write_source(args.out, package, root)
    if args.poetry and not os.path.exists(os.path.join(args.out, POETRY.name + ".jsonl")):
        write_source(args.out, POETRY, args.poetry)


def table(args):
    rows, by_licence = [], {}
    for path in sorted(glob.glob(os.path.join(args.out, "*.jsonl"))):
        count, size, licence = 0, 0, ""
        with open(path, encoding="utf-8") as file:
            for line in file:
                document = json.loads(line)
                count, size = count + 1, size + len(document["text"].encode())
                licence = document["licence"]
        rows.append((os.path.basename(path)[:-6], licence, count, size))
        before = by_licence.get(licence, (0, 0))
        by_licence[licence] = (before[0] + count, before[1] + size)
    line = "{:<28}{:<28}{:>10}{:>10}"
    print(line.format("source", "licence", "documents", "MB"))
    for name, licence, count, size in rows:
        print(line.format(name, licence, count, f"{size / 1e6:.1f}"))
    for licence, (count, size) in sorted(by_licence.items()):
        print(line.format("all sources under", licence, count, f"{size / 1e6:.1f}"))
    print(line.format("all", "", sum(row[2] for row in rows),
                      f"{sum(row[3] for row in rows) / 1e6:.1f}"))


def chosen(everything):
    return [package for package in PACKAGES if everything or package.free]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list")
    listing.add_argument("--all", action="store_true")
    extraction = commands.add_parser("extract")
    extraction.add_argument("out")
    extraction.add_argument("--debs", required=True, help="folder of the .deb files")
    extraction.add_argument("--poetry", help="unpacked npm package chinese-poetry 2.0.1")
    extraction.add_argument("--all", action="store_true")
    commands.add_parser("table").add_argument("out")
    args = parser.parse_args()
    if args.command == "list":
        for package in chosen(args.all):
            print("\n".join([package.name, *package.needs]))
    elif args.command == "extract":
        extract(args)
    else:
        table(args)


if __name__ == "__main__":
    main()
