#!/usr/bin/env python3
"""tools/llama_compare.py and tools/onednn_compare.py on stand-ins for the programs, whose speeds are known.
Standard library only."""
import json
import pathlib
import subprocess
import sys
import tempfile

TOOLS = pathlib.Path(__file__).resolve().parent.parent / "tools"
SKIPPED = 77

# 20, 40 and 60 tokens/s in the first three runs of a case; 0.5 TFLOP/s, 20 GB/s
MINKE = """#!/usr/bin/env python3
import json, pathlib, sys
a = sys.argv[1:]
if a[:2] == ["bench", "gemm"]:
    r = [{"name": "linear", "form": "bf16", "shape": "10 x 100 x 1000", "seconds": 2e6 / 0.5e12},
         {"name": "linear", "form": "fp32", "shape": "10 x 100 x 1000", "seconds": 1},
         {"name": "linear from memory", "form": "bf16", "shape": "1 x 100 x 1000", "seconds": 2e5 / 20e9},
         {"name": "pack", "form": "bf16", "shape": "100 x 1000", "seconds": 1}]
else:
    assert a[:2] in (["bench", "decode"], ["bench", "prefill"]) and "--json" in a, a
    count = pathlib.Path(__file__ + a[1] + a[3])
    n = len(count.read_text()) if count.exists() else 0
    count.write_text("x" * (n + 1))
    r = [{"name": a[1], "tokens_per_s": 20.0 * (n + 1)}]
print(json.dumps({"results": r}))
"""
LLAMA_BENCH = """#!/usr/bin/env python3
import json, sys
a = sys.argv[1:]
if "--help" in a:
    print("USAGE")
else:
    assert "-x" in a and all(flag in a for flag in ("-m", "-t", "-r")), a
    after = {"-d": ["-p", "0", "-n", "32", "-d", "4096"], "-gp": ["-p", "0", "-n", "0", "-gp", "4096,32"]}["EXPECTED"]
    work = a[a.index("-p"):a.index("-x")]
    assert work in (["-p", "0", "-n", "32"], after, ["-p", "512", "-n", "0"], ["-p", "4096", "-n", "0"]), a
    print(json.dumps([{"samples_ts": [1.0, 10.0, 90.0]}]))
"""
ONEDNN = """#!/usr/bin/env python3
import json
print(json.dumps({"version": "0.0", "results": [
    {"name": "linear", "shape": "10 x 100 x 1000", "seconds": 2e6 / 0.25e12},
    {"name": "linear", "shape": "1 x 1 x 1", "seconds": 1},
    {"name": "linear from memory", "shape": "1 x 100 x 1000", "seconds": 2e5 / 40e9}]}))
"""


def run(tool, *arguments):
    return subprocess.run([sys.executable, TOOLS / tool, *map(str, arguments)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True)


def write(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return path


def check(what, true):
    if not true:
        raise SystemExit(f"failed: {what}")


def check_llama(folder, minke):
    model = write(folder / "model.gguf", "")
    for usage, expected in (("-d, --n-depth <n>", "-d"), ("-gp <pp,tg>", "-gp")):
        for count in folder.glob("minke*[0-9]"):
            count.unlink()
        rival = write(folder / "llama-bench", LLAMA_BENCH.replace("USAGE", usage).replace("EXPECTED", expected))
        done = run("llama_compare.py", minke, rival, model, "--rounds", 3, "--flags", "-x 1", "--json")
        check(done.stderr, done.returncode == 0)
        answer = json.loads(done.stdout)
        check("cases", [r["name"] for r in answer["results"]] ==
              ["decode after 0", "decode after 4096", "prefill 512", "prefill 4096"])
        for r in answer["results"]:
            check(r, r["rival"] == {"median": 10, "min": 10, "max": 10})
            check(r, r["minke"] == {"median": 40, "min": 20, "max": 60})
            check(r, r["ratio"] == {"median": 4, "min": 2, "max": 6} and len(r["rounds"]) == 3)
    done = run("llama_compare.py", minke, rival, model, "--rounds", 1, "--flags", "-x 1", "--only", "prefill 512")
    check(done.stdout, "prefill 512" in done.stdout and "decode" not in done.stdout and "tokens/s" in done.stdout)
    failing = write(folder / "failing", "#!/bin/sh\necho no such flag >&2; exit 3\n")
    done = run("llama_compare.py", minke, failing, model)
    check(done.stderr, done.returncode == 1 and "failed with 3: no such flag" in done.stderr)
    for absent in ((folder / "absent", model), (rival, folder / "absent")):
        done = run("llama_compare.py", minke, *absent)
        check(done.stdout, done.returncode == SKIPPED and done.stdout.startswith("skipped: "))


def check_onednn(folder, minke):
    done = run("onednn_compare.py", minke, write(folder / "onednn_gemm", ONEDNN), "--rounds", 2, "--json")
    check(done.stderr, done.returncode == 0)
    rows = {r["name"]: r for r in json.loads(done.stdout)["results"]}
    check(rows, set(rows) == {"linear 10 x 100 x 1000", "linear from memory 1 x 100 x 1000"})
    for name, ours, theirs in (("linear 10 x 100 x 1000", 0.5, 0.25), ("linear from memory 1 x 100 x 1000", 20, 40)):
        row = rows[name]
        check(row, abs(row["minke"]["median"] - ours) < 1e-6 and abs(row["rival"]["median"] - theirs) < 1e-6)
        check(row, abs(row["ratio"]["median"] - ours / theirs) < 1e-6)
    check("units", [r["unit"] for r in rows.values()] == ["TFLOP/s", "GB/s"])
    done = run("onednn_compare.py", minke, folder / "absent")
    check(done.stdout, done.returncode == SKIPPED and done.stdout.startswith("skipped: "))


with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary)
    minke = write(folder / "minke", MINKE)
    check_llama(folder, minke)
    check_onednn(folder, minke)
