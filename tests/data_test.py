#!/usr/bin/env python3
"""minke data as a user runs it: bad input, kill -9, Ctrl-C, a full disk, and training on the result.

  tests/data_test.py MINKE
"""
import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

MINKE = sys.argv[1]
LARGE_LINE = 2 << 30  # bytes, in a sparse file
MOST_RESIDENT_KB = 700 * 1024  # the sanitizers' shadow memory included
WORDS = ("the cat sat on mat while seven red birds sang their old song to every quiet river under "
         "our pale moon 床前 明月 疑是 地上 霜").split()


def run(*args, check=True):
    done = subprocess.run([MINKE, *map(str, args)], capture_output=True, text=True)
    if check and done.returncode != 0:
        sys.exit(f"minke {' '.join(map(str, args))}: status {done.returncode}\n{done.stderr}")
    return done


def expect(condition, what):
    if not condition:
        sys.exit(f"FAILED: {what}")


def sentence(rng, n):
    return " ".join(rng.choice(WORDS) + str(rng.randrange(50)) for _ in range(n))


def write_lines(path, n, seed, source):
    rng = random.Random(seed)
    with open(path, "w", encoding="utf-8") as out:
        for _ in range(n):
            text = sentence(rng, rng.randrange(20, 80))
            out.write(json.dumps({"text": text, "source": source}, ensure_ascii=False) + "\n")


def contents(directory):
    files = {}
    for name in sorted(os.listdir(directory)):
        with open(os.path.join(directory, name), "rb") as file:
            files[name] = file.read()
    return files


def manifest(directory):
    with open(os.path.join(directory, "manifest.json"), encoding="utf-8") as file:
        return json.load(file)


def check_accounts(found):
    documents = found["documents"]
    expect(documents["in"] == documents["train"] + documents["held_out"] - documents["cut"]
           + sum(documents["left_out"].values()), f"documents do not add up: {documents}")


# name -> (how to make it, what is said of it)
def bad_inputs(work):
    good = '{"text": "a good line about %s"}\n'

    def write(content):
        def make(path):
            with open(path, "wb") as file:
                file.write(content)
        return make

    def large_line(path):
        with open(path, "wb") as file:
            file.write((good % "before").encode())
            file.truncate(LARGE_LINE)
            file.seek(0, 2)
            file.write(("\n" + good % "after").encode())

    def loop(path):
        os.mkdir(path)
        os.symlink(path, os.path.join(path, "again"))

    def unreadable(path):
        write(b"secret")(path)
        os.chmod(path, 0)

    lines = "".join(good % i for i in range(500)).encode()
    packed = gzip.compress(lines)
    bad = {
        "utf8.txt": (write(b"good\nbad \xff here\n"), "is not UTF-8"),
        "cut.jsonl.gz": (write(packed[:len(packed) // 2]), "in the middle of its compressed data"),
        "damaged.jsonl.gz": (write(packed[:200] + bytes(50) + packed[250:]), "damaged"),
        "large.jsonl": (large_line, "bytes, at most 67108864 allowed"),
        "empty.txt": (write(b""), "the file is empty"),
        "json.jsonl": (write(b'{"text": "x"\n'), "line 1: not valid JSON"),
        "field.jsonl": (write(b'{"txt": "x"}\n'), "has no field 'text'"),
        "type.jsonl": (write(b'{"text": ["x"]}\n'), "field 'text' is not a string"),
        "loop": (loop, "leads to a folder that it lies in"),
        "page.pdf": (write(b"x"), "the ending is neither"),
        "dangling.txt": (lambda path: os.symlink(os.path.join(work, "nowhere"), path), "cannot open"),
    }
    if shutil.which("zstd"):
        frame = subprocess.run(["zstd", "-q", "-c"], input=lines, capture_output=True).stdout
        bad["cut.jsonl.zst"] = (write(frame[:len(frame) // 2]), "in the middle of its compressed")
    else:
        print("zstd is not installed: a truncated .zst is left to the unit tests")
    if os.geteuid() != 0:
        bad["secret.txt"] = (unreadable, "Permission denied")
    return bad


def test_bad_input(work, tokenizer):
    bad = bad_inputs(work)
    together = os.path.join(work, "bad")
    os.mkdir(together)
    for name, (make, said) in bad.items():
        alone = os.path.join(work, "bad-" + name)
        os.mkdir(alone)
        make(os.path.join(alone, name))
        out = os.path.join(work, "out-" + name)
        done = run("data", "--in", alone, "--tokenizer", tokenizer, "--out", out, check=False)
        expect(done.returncode == 1 and said in done.stderr and name in done.stderr,
               f"{name}: status {done.returncode}, '{said}' expected in: {done.stderr}")
        expect("--on-error skip" in done.stderr, f"{name}: no word on how to go on: {done.stderr}")
        expect(not os.path.exists(out), f"{name}: {out} was made")
        shutil.rmtree(alone)
        make(os.path.join(together, name))
    write_lines(os.path.join(together, "good.jsonl"), 100, 1, "good")
    out = os.path.join(work, "out-bad")
    before = resident_of_children()
    run("data", "--in", together, "--tokenizer", tokenizer, "--out", out, "--on-error", "skip",
        "--near-duplicates", "0")
    after = resident_of_children()
    expect(after <= max(before, MOST_RESIDENT_KB), f"{after} KB resident for a line of 2 GiB")
    found = manifest(out)
    check_accounts(found)
    left_out = found["documents"]["left_out"]
    for reason in ("not_utf8", "item_too_long", "not_json", "no_text_field", "wrong_type"):
        expect(left_out[reason] >= 1, f"{reason} was not counted: {left_out}")
    files = found["inputs"]["left_out"]
    for reason in ("empty_file", "directory_loop", "unknown_ending", "unreadable"):
        expect(files[reason] >= 1, f"{reason} was not counted: {files}")
    expect(found["inputs"]["broken_off"] >= 2, f"broken files: {found['inputs']}")
    with open(os.path.join(out, "skipped.jsonl"), encoding="utf-8") as file:
        named = {os.path.basename(json.loads(line)["path"]) for line in file}
    for name in bad:
        expect(name in named or name == "loop" and "again" in named, f"{name} is not in skipped.jsonl")
    sources = {source["name"]: source for source in found["sources"]}
    expect(sources["good"]["train"]["documents"] + sources["good"]["held_out"]["documents"] == 100,
           f"good documents were lost: {sources['good']}")
    expect("large" in sources, "the lines around the large one were lost")


def resident_of_children():
    import resource
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


def command(text, tokenizer, out):
    return [MINKE, "data", "--in", text, "--tokenizer", tokenizer, "--out", out, "--batch-bytes",
            "30000", "--checkpoint-seconds", "0.02", "--shard-tokens", "20000"]


def end_at(args, seconds, how):
    process = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        _, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(how)
        _, said = process.communicate()
    return process.returncode, said


def test_ends(work, text, tokenizer, expected, took):
    for how, status in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)):
        out = os.path.join(work, how.name)
        ended = 0
        for k in range(40):  # each time it comes a little further; where, differs
            code, said = end_at(command(text, tokenizer, out), took * (1 + k % 4) / 8, how)
            # A signal may come before the program listens to it, on a slow machine.
            expect(code in (0, status, -how), f"{how.name}: status {code}: {said}")
            ended += code == status
            expect(code != 0 or os.path.exists(out), f"{how.name}: {out} is not there")
            if os.path.exists(out):  # also when the end came between the rename and the exit
                break
        else:
            subprocess.run(command(text, tokenizer, out), check=True, capture_output=True)
        expect(ended > 0, f"{how.name}: the run was never ended, it is too short for this test")
        expect(contents(out) == expected, f"{how.name}: other bytes than those of a run in one piece")
        print(f"{how.name}: ended {ended} times, same bytes")


def test_full_disk(work, text, tokenizer, expected):
    disk = os.path.join(work, "disk")
    os.mkdir(disk)

    def mount(*options):
        return subprocess.run(["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", disk],
                              capture_output=True).returncode == 0

    if os.geteuid() != 0 or not mount("size=64k"):
        print("no small file system can be mounted here: the full disk is not tested")
        return
    try:
        full = 0
        for size in list(range(64, 1024, 96)) + [65536]:
            expect(mount("remount", f"size={size}k"), "remount")
            done = subprocess.run(command(text, tokenizer, os.path.join(disk, "out")),
                                  capture_output=True, text=True)
            if done.returncode == 0:
                break
            expect(done.returncode == 1 and "No space left on device" in done.stderr,
                   f"full disk: status {done.returncode}: {done.stderr}")
            expect(not os.path.exists(os.path.join(disk, "out")), "full disk: OUT is there")
            full += 1
        expect(full > 2, "the disk was hardly ever full")
        expect(contents(os.path.join(disk, "out")) == expected, "full disk: other bytes")
        print(f"the disk was full {full} times, same bytes")
    finally:
        subprocess.run(["umount", disk], check=False)


def test_training(work, shards, tokenizer):
    recipe = os.path.join(work, "recipe.json")
    with open(recipe, "w", encoding="utf-8") as file:
        json.dump({"steps": 1, "out": os.path.join(work, "model"),
                   "data": {"paths": [shards], "tokenizer": tokenizer, "sequence_length": 32,
                            "batch_size": 2, "mixture": ["one=3", "two=1"], "fim_rate": 0.1,
                            "split_rate": 0}}, file)
    tokens = manifest(shards)["train"]["tokens"]
    expect(f"{tokens} tokens" in run("train", recipe, "--dry-run").stdout, "tokens of the shards")
    other = os.path.join(work, "other-tokenizer")
    shutil.copytree(tokenizer, other)
    with open(os.path.join(other, "tokenizer.json"), "a", encoding="utf-8") as file:
        file.write("\n")
    for setting, said in ((f"data.tokenizer={other}", "another tokenizer"),
                          ("data.mixture=one=1", "'two' has no weight"),
                          (f"data.paths={shards},{work}/text", "of all of them")):
        done = run("train", recipe, "--set", setting, "--dry-run", check=False)
        expect(done.returncode == 1 and said in done.stderr, f"{setting}: {done.stderr}")


def main():
    with tempfile.TemporaryDirectory() as work:
        text = os.path.join(work, "text")
        os.mkdir(text)
        write_lines(os.path.join(text, "one.jsonl"), 1200, 1, "one")
        write_lines(os.path.join(text, "two.jsonl"), 400, 2, "two")
        tokenizer = os.path.join(work, "tokenizer")
        run("train-tokenizer", "--data", text, "--vocab", "1400", "--out", tokenizer)
        whole = os.path.join(work, "whole")
        begin = time.monotonic()
        run(*command(text, tokenizer, whole)[1:])
        took = time.monotonic() - begin
        check_accounts(manifest(whole))
        run("data", "--verify", whole)
        test_bad_input(work, tokenizer)
        test_ends(work, text, tokenizer, contents(whole), took)
        test_full_disk(work, text, tokenizer, contents(whole))
        test_training(work, whole, tokenizer)
    print("ok")


if __name__ == "__main__":
    main()
