#!/usr/bin/env python3
"""Includes point down only: reads the include lines of src/ and fails on an arrow that the table in
docs/architecture.md does not allow. Also: CMakeLists.txt links what the table says and nothing else,
instruction sets are named in ops/ alone, and no folder goes by a name that says nothing."""
import os
import re
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
TABLE_BEGIN, TABLE_END = "<!-- layers -->", "<!-- /layers -->"
EMPTY_NAMES = re.compile(r"(^|_)(utils?|helpers?|common|misc)(_|\.|$)")
# System headers and names that belong to one instruction set.
INSTRUCTION_SET = re.compile(
    r"immintrin\.h|x86intrin\.h|arm_neon\.h|\b_mm(256|512)?_\w+|\b_tile_\w+|\b__m(128|256|512)\w*\b"
    r"|__attribute__\s*\(\(\s*target|#pragma\s+GCC\s+(target|push_options)")


def read(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as file:
        return file.read()


def table(text):
    """{layer: layers it names} from rows `| `layer` | `a`, `b` | ...`."""
    block = text.split(TABLE_BEGIN)[1].split(TABLE_END)[0]
    rows = {}
    for line in block.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        name = re.fullmatch(r"`(\w+)`", cells[0]) if len(cells) >= 2 else None
        if name:
            rows[name[1]] = re.findall(r"`(\w+)`", cells[1])
    return rows


def reachable(rows, layer, seen=None):
    seen = set() if seen is None else seen
    if layer not in seen:
        seen.add(layer)
        for lower in rows[layer]:
            reachable(rows, lower, seen)
    return seen


def uses_of_cmake(text):
    uses = {}
    for name, rest in re.findall(r"minke_(?:layer|program)\((\w+)([^)]*)\)", text):
        layer = re.search(r"\bDIR\s+(\w+)", rest)
        used = re.search(r"\bUSES\b((?:\s+[a-z_]+\b)*)", rest)
        uses[layer[1] if layer else name] = used[1].split() if used else []
    return uses


def check(rows, files, cmake):
    """The list of everything that is wrong; `files` is [(path below src/, text)]."""
    wrong = []
    for layer, lowers in rows.items():
        wrong += [f"docs/architecture.md: {layer} names {lower}, which has no row"
                  for lower in lowers if lower not in rows]
    if wrong:
        return wrong
    for path, text in files:
        layer = path.split("/")[0]
        if layer not in rows:
            wrong.append(f"src/{path}: folder {layer}/ is not in the table of docs/architecture.md")
            continue
        allowed = reachable(rows, layer)
        if EMPTY_NAMES.search(os.path.basename(path)):
            wrong.append(f"src/{path}: name it after what it holds")
        for number, line in enumerate(text.splitlines(), 1):
            include = re.match(r'\s*#\s*include\s*"([^"]+)"', line)
            if include:
                target = include[1].split("/")[0]
                if path.endswith("_test.cpp") and os.path.exists(os.path.join(ROOT, "tests", include[1])):
                    continue  # what tests of several layers share
                if "/" not in include[1] or ".." in include[1]:
                    wrong.append(f'src/{path}:{number}: include "{include[1]}" must be written '
                                 "as folder/file.h")
                elif target not in rows:
                    wrong.append(f'src/{path}:{number}: include "{include[1]}": no such layer')
                elif target not in allowed:
                    wrong.append(f'src/{path}:{number}: {layer}/ may not include "{include[1]}"; '
                                 f"it may include {', '.join(sorted(allowed))}")
            if layer != "ops" and INSTRUCTION_SET.search(line):
                wrong.append(f"src/{path}:{number}: instruction sets are named in ops/ alone")
    for layer, used in cmake.items():
        if layer not in rows:
            wrong.append(f"CMakeLists.txt: {layer} is not in the table of docs/architecture.md")
            continue
        linked = set(used)
        for lower in used:
            if lower in rows:
                linked |= reachable(rows, lower)
        for lower in sorted(linked - reachable(rows, layer)):
            wrong.append(f"CMakeLists.txt: {layer} links {lower}, which the table does not allow")
    return wrong


def self_test():
    rows = {"base": [], "ops": ["base"], "model": ["ops"]}
    good = [("model/mla.cpp", '#include "model/mla.h"\n#include "base/error.h"\n#include <vector>\n'),
            ("ops/x.cpp", "#include <immintrin.h>\n__m512 a;")]
    assert check(rows, good, {"model": ["ops"], "base": []}) == [], "what is allowed was refused"
    for path, text, cmake in [
            ("base/a.cpp", '#include "ops/b.h"', {}), ("ops/a.cpp", '  #  include "model/b.h"', {}),
            ("model/a.cpp", "#include <immintrin.h>", {}), ("model/a.cpp", "__m256i a;", {}),
            ("model/a.cpp", '#include "../ops/b.h"', {}), ("model/a.cpp", '#include "b.h"', {}),
            ("model/string_utils.cpp", "", {}), ("extra/a.cpp", "", {}),
            ("base/a.cpp", "", {"base": ["ops"]})]:
        assert check(rows, [(path, text)], cmake), f"not noticed: {path} {text} {cmake}"


def main():
    self_test()
    files = []
    for folder, _, names in os.walk(os.path.join(ROOT, "src")):
        for name in sorted(names):
            if name.endswith((".h", ".cpp", ".inc")):
                path = os.path.relpath(os.path.join(folder, name), os.path.join(ROOT, "src"))
                files.append((path, read("src", path)))
    rows = table(read("docs", "architecture.md"))
    wrong = check(rows, sorted(files), uses_of_cmake(read("CMakeLists.txt")))
    if len(files) < 10:
        wrong.append("src/ holds hardly any file: is this the right checkout?")
    print("\n".join(wrong) if wrong else f"{len(files)} files, every arrow points down")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
