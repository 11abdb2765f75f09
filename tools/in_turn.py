"""Programs measured in turn, so that both see the same machine: used by the *_compare.py beside it."""
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys

SKIPPED = 77


def skip(why):
    print(f"skipped: {why}")
    sys.exit(SKIPPED)


def program(path, what):
    """The program's full path; the comparison is skipped without it."""
    found = shutil.which(path)
    if not found:
        skip(f"{what} {path} is not there")
    return str(pathlib.Path(found).resolve())


def threads():
    return len(os.sched_getaffinity(0))


def output_of(command):
    """What a command prints; its complaints only when it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nfailed with {done.returncode}: {done.stderr.strip()[-600:]}")
    return done.stdout


def minke_results(minke, *arguments):
    return json.loads(output_of([minke, "bench", *arguments, "--json"]))["results"]


def measure(rounds, ours, theirs, lines=None):
    """`ours` and `theirs` run a program and return {what: speed}. Who goes first alternates. Returns, or adds to
    `lines`, {what: [(our speed, their speed) of each round]} of what both measured."""
    lines = {} if lines is None else lines
    for i in range(rounds):
        if i % 2 == 0:
            a, b = ours(), theirs()
        else:
            b, a = theirs(), ours()
        for what in a:
            if what in b:
                lines.setdefault(what, []).append((a[what], b[what]))
                print(f"round {i + 1} of {rounds}: {what}: {a[what]:.4g}, rival {b[what]:.4g}",
                      file=sys.stderr, flush=True)
    return lines


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def report(lines, unit_of, rival, heading, as_json):
    """Medians of both, and of the ratio of each round, with the least and the greatest of each."""
    rows = [{"name": what, "unit": unit_of(what), "minke": summary([a for a, _ in pairs]),
             "rival": summary([b for _, b in pairs]), "ratio": summary([a / b for a, b in pairs]), "rounds": pairs}
            for what, pairs in lines.items()]
    if as_json:
        print(json.dumps({**heading, "rival": rival, "results": rows}, indent=1))
        return
    def span(s, digits):
        return f"{s['median']:9.{digits}f} ({s['min']:.{digits}f} to {s['max']:.{digits}f})"
    print(", ".join(f"{k} {v}" for k, v in heading.items()))
    for r in rows:
        least = min(r["minke"]["median"], r["rival"]["median"])
        digits = 3 if least < 1 else max(0, 3 - len(str(int(least))))
        print(f"{r['name']:37}{r['unit']:9}minke {span(r['minke'], digits):26} {rival} {span(r['rival'], digits):26} "
              f"ratio {span(r['ratio'], 2)}")
