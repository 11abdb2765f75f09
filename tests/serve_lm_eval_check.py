#!/usr/bin/env python3
"""lm-evaluation-harness against `minke serve`: its bits per byte are those of `minke eval`, and of a true
and a scrambled continuation it finds the true one.

  serve_lm_eval_check.py MINKE MODEL_DIR CORPUS_FILE [--python PYTHON]

CORPUS_FILE: JSON lines with "text". Installs lm-eval with pip into a temporary directory unless PYTHON
has it; not part of ctest.
"""
import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

TASK = """task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
"""
CHOICE = TASK + """output_type: multiple_choice
doc_to_text: "{{{{context}}}}"
target_delimiter: ""
doc_to_choice: "{{{{choices}}}}"
doc_to_target: gold
metric_list:
  - metric: acc
"""
ROLLING = TASK + """output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - metric: bits_per_byte
"""


def write_tasks(corpus, folder):
    rows = []
    for line in open(corpus, encoding="utf-8"):
        words = json.loads(line)["text"].split()
        if len(words) > 60 and len(rows) < 60:
            true, scrambled = words[30:40], words[49:39:-1]
            rows.append({"context": " ".join(words[:30]), "gold": 0, "text": " ".join(words[:150]),
                         "choices": [" " + " ".join(true), " " + " ".join(scrambled)]})
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "choice.yaml").write_text(CHOICE.format(name="minke_choice", data=data))
    (folder / "rolling.yaml").write_text(ROLLING.format(name="minke_rolling", data=data))
    return data


def started_server(minke, model):
    server = subprocess.Popen([minke, "serve", "--model", model, "--port", "0"], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True)
    url = server.stdout.readline().strip()
    while True:
        try:
            urllib.request.urlopen(url + "/health").close()
            return server, url
        except OSError:
            if server.poll() is not None:
                sys.exit("the server did not start")
            time.sleep(0.1)


def harness(python, url, model, folder):
    done = subprocess.run(
        [python, "-m", "lm_eval", "--model", "local-completions", "--model_args",
         f"base_url={url}/v1/completions,model=deepseek-chat,tokenizer={model},num_concurrent=4,max_length=4096",
         "--tasks", "minke_choice,minke_rolling", "--include_path", folder, "--batch_size", "8"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    found = {name: float(value) for name, value in
             re.findall(r"\|minke_(\w+) *\|.*?\|(?:↑|↓) *\| *([0-9.]+)", done.stdout)}
    if len(found) != 2:
        sys.exit(done.stdout[-3000:])
    return found


def main():
    flags = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    flags.add_argument("minke")
    flags.add_argument("model")
    flags.add_argument("corpus")
    flags.add_argument("--python")
    args = flags.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        python = args.python
        if not python:
            subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
            python = folder / "venv/bin/python"
            subprocess.run([python, "-m", "pip", "install", "-q", "lm_eval[api]", "transformers"], check=True)
        data = write_tasks(args.corpus, folder)
        server, url = started_server(args.minke, args.model)
        try:
            found = harness(python, url, args.model, folder)
        finally:
            server.terminate()
            server.wait()
        subprocess.run([args.minke, "eval", "--task", "bpb", "--model", args.model, "--data", data, "--out",
                        folder / "bpb.json"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        result = json.loads((folder / "bpb.json").read_text())
        own = result["overall"]["bits_per_byte"]
        print(f"bits per byte: lm-eval {found['rolling']:.4f}, minke eval {own:.4f}; "
              f"true continuations found: {100 * found['choice']:.0f} %")
        sys.exit(0 if abs(found["rolling"] - own) < 0.002 and found["choice"] > 0.8 else 1)


if __name__ == "__main__":
    main()
