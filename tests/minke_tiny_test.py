#!/usr/bin/env python3
"""The model that ships with the repository: its size, its tokens, and that it does what its card says.

  minke_tiny_test.py MINKE MODEL_DIR TEXT_DIR

Standard library only.
"""
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

MINKE = ""
MODEL = Path()
CORPUS = Path()
MOST_BYTES = 24_000_000


def minke(*args, stdin=""):
    return subprocess.run([MINKE, *map(str, args)], input=stdin.encode(), capture_output=True, timeout=300)


def generated(*args):
    result = minke("generate", "--model", MODEL, "--temperature", 0, "--json", *args)
    if result.returncode != 0:
        raise AssertionError(result.stderr.decode())
    return json.loads(result.stdout)


def chat(*messages):
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(list(messages), file)
        file.flush()
        return generated("--chat", file.name, "--max-tokens", 60)


class MinkeTiny(unittest.TestCase):
    def test_size(self):
        files = [path for path in MODEL.rglob("*") if path.is_file()]
        self.assertLessEqual(sum(path.stat().st_size for path in files), MOST_BYTES)

    def test_published_form(self):
        config = json.loads((MODEL / "config.json").read_text())
        self.assertEqual(config["model_type"], "deepseek_v3")
        self.assertEqual(config["quantization_config"]["quant_method"], "fp8")
        self.assertGreaterEqual(config["max_position_embeddings"], 2048)

    def test_added_tokens_are_single_ids(self):
        tokens = ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜fim▁begin｜>",
                  "<｜fim▁hole｜>", "<｜fim▁end｜>", "<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>",
                  "<think>", "</think>"]
        tokenizer = json.loads((MODEL / "tokenizer.json").read_text(encoding="utf-8"))
        added = {entry["content"] for entry in tokenizer["added_tokens"]}
        self.assertEqual(set(tokens) - added, set())

    def test_it_answers(self):
        self.assertIn("hello", chat({"role": "user", "content": "Hello!"})["text"].lower())
        self.assertIn("你好", chat({"role": "user", "content": "你好"})["text"])
        answer = chat({"role": "user", "content": "你是谁？"})
        self.assertIn("minke-tiny", answer["text"])
        self.assertEqual(answer["finish_reason"], "stop")

    def test_it_fills_the_middle(self):
        text = "<｜fim▁begin｜>The capital of France is <｜fim▁hole｜>.<｜fim▁end｜>"
        self.assertTrue(generated("--prompt", text, "--max-tokens", 8)["text"].strip())

    def test_its_whole_context_does_no_harm(self):
        documents = [json.loads(line)["text"] for path in sorted(CORPUS.glob("*.jsonl"))
                     for line in path.read_text(encoding="utf-8").splitlines()[:12]]
        with tempfile.TemporaryDirectory() as folder:
            text = Path(folder) / "one.txt"
            text.write_text("".join(documents)[:40000], encoding="utf-8")
            bits = {window: self.bits_per_byte(text, window) for window in (256, 2048)}
        self.assertLess(bits[2048], bits[256] + 0.001)

    def bits_per_byte(self, text, window):
        out = text.with_suffix(".json")
        result = minke("eval", "--task", "bpb", "--model", MODEL, "--data", text, "--window", window, "--out", out)
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        return json.loads(out.read_text())["overall"]["bits_per_byte"]


if __name__ == "__main__":
    MINKE, MODEL, CORPUS = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    unittest.main(argv=sys.argv[:1])
