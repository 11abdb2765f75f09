#!/usr/bin/env python3
"""generate, chat, eval and bench as a user runs them, on tiny models.

  use_test.py MINKE GOLDEN_DIR

Standard library only. A model with a tokenizer is made of the golden tiny-bf16: its vocabulary is
repeated to 512 rows and `minke train-tokenizer` gives it a tokenizer.
"""
import json
import math
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

MINKE = ""
GOLDEN = Path()
VOCABULARY = 512


def run(*args, stdin=""):
    return subprocess.run([MINKE, *map(str, args)], input=stdin.encode(), capture_output=True,
                          timeout=600)


def read_safetensors(path):
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    return {
        name: (t["dtype"], t["shape"],
               data[8 + length + t["data_offsets"][0] : 8 + length + t["data_offsets"][1]])
        for name, t in header.items()
    }


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape,
                        "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text
                     + b"".join(data for _, _, data in tensors.values()))


def integers(tensor):
    _, shape, data = tensor
    values = [x for (x,) in struct.iter_unpack("<q", data)]
    width = shape[-1]
    return [values[i : i + width] for i in range(0, len(values), width)]


def make_model(directory):
    """tiny-bf16 with 512 tokens and a tokenizer."""
    corpus = directory / "corpus.txt"
    words = "the sea and the ship that went over the water to the far shore of the land ".split()
    corpus.write_text("\n".join(" ".join(words[i % 13 :] + words[: i % 7]) for i in range(200))
                      + "\n春眠不覺曉，處處聞啼鳥。夜來風雨聲，花落知多少。\n" * 20, encoding="utf-8")
    model = directory / "model"
    made = run("train-tokenizer", "--data", corpus, "--vocab", VOCABULARY, "--out", model)
    assert made.returncode == 0, made.stderr.decode()
    config = json.loads((GOLDEN / "tiny-bf16" / "config.json").read_text())
    tensors = read_safetensors(GOLDEN / "tiny-bf16" / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        dtype, shape, data = tensors[name]
        tensors[name] = (dtype, [VOCABULARY, shape[1]], data * (VOCABULARY // shape[0]))
    config["vocab_size"] = VOCABULARY
    (model / "config.json").write_text(json.dumps(config))
    write_safetensors(model / "model.safetensors", tensors)
    return model, corpus


class Use(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = Path(tempfile.mkdtemp(prefix="minke_use_"))
        cls.model, cls.corpus = make_model(cls.directory)
        cls.plain = GOLDEN / "tiny-bf16"

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.directory)

    def generate(self, *args, model=None):
        done = run("generate", "--model", model or self.model, "--json", *args)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        result = json.loads(done.stdout)
        self.assertEqual(list(result), ["prompt_tokens", "ids", "text", "finish_reason",
                                        "prefill_s", "decode_s"])
        return result

    def tokenize(self, request):
        done = run("tokenize", "--model", self.model, stdin=json.dumps(request) + "\n")
        self.assertEqual(done.returncode, 0, done.stdout.decode())
        return json.loads(done.stdout)

    def test_greedy_ids_are_the_golden_ones(self):
        expected = read_safetensors(self.plain / "expected.safetensors")
        length = json.loads((self.plain / "expected.json").read_text())["greedy_prompt_len"]
        for tokens, greedy in zip(integers(expected["tokens"]), integers(expected["greedy.tokens"])):
            prompt = ",".join(map(str, tokens[:length]))
            for form in ("auto", "absorbed", "expanded"):
                result = self.generate("--prompt-ids", prompt, "--max-tokens", len(greedy),
                                       "--temperature", 0, "--compute", "fp32", "--attention",
                                       form, "--ignore-eos", model=self.plain)
                self.assertEqual(result["ids"], greedy)
                self.assertIsNone(result["text"])
                self.assertEqual(result["finish_reason"], "length")
                self.assertEqual(result["prompt_tokens"], length)

    def test_chunks_and_threads_do_not_change_the_ids(self):
        for compute, cache in (("fp32", "auto"), ("bf16", "auto"), ("fp8", "auto"), ("bf16", "fp8")):
            first = None
            for flags in (["--threads", 1], ["--threads", 2, "--prefill-chunk", 3],
                          ["--prefill-chunk", 1], ["--prefill-chunk", 0]):
                ids = self.generate("--prompt", "the ship went over the sea", "--seed", 5,
                                    "--max-tokens", 12, "--compute", compute, "--ignore-eos",
                                    "--cache-dtype", cache, *flags)["ids"]
                first = first or ids
                self.assertEqual(ids, first, (compute, cache, flags))

    def test_a_packed_model_gives_the_same_ids(self):
        packed = self.directory / "packed"
        made = run("convert", "--model", self.model, "--out", packed, "--dtype", "packed")
        self.assertEqual(made.returncode, 0, made.stderr.decode())
        self.assertIn("packed for --compute bf16", made.stderr.decode())
        request = ("--prompt", "the ship went", "--seed", 5, "--max-tokens", 12, "--ignore-eos")
        for isa in ("auto", "scalar"):
            of_isa = [] if isa == "auto" else ["--isa", isa]
            self.assertEqual(self.generate(*request, *of_isa, model=packed)["ids"],
                             self.generate(*request, *of_isa)["ids"])
        for args, line in ((["generate", "--model", packed, "--compute", "fp32", *request],
                            "is packed for --compute bf16, not fp32"),
                           (["convert", "--model", packed, "--out", self.directory / "again",
                             "--dtype", "bf16"], "holds packed weights"),
                           (["info", "--model", packed], "holds packed weights")):
            done = run(*args)
            self.assertNotEqual(done.returncode, 0, args)
            self.assertIn(line, done.stderr.decode())

    def test_text_prompt_begins_with_begin_of_sentence(self):
        ids = self.tokenize({"text": "the sea"})["ids"]
        result = self.generate("--prompt", "the sea", "--max-tokens", 6, "--seed", 1,
                               "--ignore-eos")
        bos = json.loads((self.model / "tokenizer_config.json").read_text())["add_bos_token"]
        self.assertEqual(result["prompt_tokens"], len(ids) + bool(bos))
        self.assertEqual(result["text"], self.tokenize({"ids": result["ids"]})["text"])
        plain = run("generate", "--model", self.model, "--prompt", "the sea", "--max-tokens", 6,
                    "--seed", 1, "--ignore-eos")
        self.assertEqual(plain.stdout.decode(), result["text"] + "\n")

    def test_chat_file_is_rendered_and_its_text_is_no_token(self):
        messages = [{"role": "user", "content": "the <｜Assistant｜> sea"}]
        path = self.directory / "messages.json"
        path.write_text(json.dumps(messages), encoding="utf-8")
        trusted = self.tokenize({"messages": messages, "add_generation_prompt": True})["ids"]
        result = self.generate("--chat", path, "--max-tokens", 1)
        self.assertGreater(result["prompt_tokens"], len(trusted))

    def test_generation_config_gives_defaults(self):
        path = self.model / "generation_config.json"
        try:
            path.write_text('{"do_sample": false}')
            greedy = self.generate("--prompt", "the", "--max-tokens", 8, "--ignore-eos")["ids"]
            path.write_text(json.dumps({"temperature": 0.7, "eos_token_id": [greedy[0]]}))
            stopped = self.generate("--prompt", "the", "--temperature", 0)
            self.assertEqual(stopped["ids"], greedy[:1])
            self.assertEqual(stopped["text"], "")
            self.assertEqual(stopped["finish_reason"], "stop")
        finally:
            path.unlink()

    def test_wrong_use_gives_one_line(self):
        for status, flags in (
            (1, ["--prompt-ids", "1,-2"]),
            (1, ["--prompt-ids", "1,128"]),
            (1, ["--prompt-ids", ",".join(["1"] * 5000)]),
            (2, ["--prompt-ids", "1,x"]),
            (2, ["--prompt-ids", "1", "--temperature", "-1"]),
            (2, ["--prompt-ids", "1", "--top-p", "nan"]),
            (2, ["--prompt-ids", "1", "--max-tokens", "0"]),
            (2, ["--prompt-ids", "1", "--seed", "-3"]),
            (2, ["--prompt-ids", "1", "--compute", "fp4"]),
            (1, ["--prompt", "text without a tokenizer"]),
        ):
            done = run("generate", "--model", self.plain, *flags)
            self.assertEqual(done.returncode, status, (flags, done.stderr.decode()))
            self.assertEqual(done.stdout, b"")
            self.assertRegex(done.stderr.decode(), r"\Aminke: [^\n]+\n\Z")

    def test_output_that_does_not_arrive_is_an_error(self):
        for args in (["generate", "--model", self.model, "--prompt", "the", "--max-tokens", 2,
                      "--json"], ["info", "--model", self.model]):
            with open("/dev/full", "w") as full:
                done = subprocess.run([MINKE, *map(str, args)], stdout=full,
                                      stderr=subprocess.PIPE, timeout=600)
            self.assertEqual(done.returncode, 1, args)
            self.assertIn(b"minke: cannot write to standard output", done.stderr)

    def test_names_out_of_files_stay_in_one_line(self):
        model = self.directory / "odd"
        model.mkdir()
        config = json.loads((self.plain / "config.json").read_text())
        config["rope_scaling"] = {"type": "a\nb\x1b[2J"}
        (model / "config.json").write_text(json.dumps(config))
        done = run("info", "--model", model)
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stderr.count(b"\n"), 1, done.stderr)
        self.assertIn(rb"a\x0ab\x1b[2J", done.stderr)

    def test_an_empty_out_is_refused(self):
        recipe = self.directory / "recipe.json"
        recipe.write_text(json.dumps({"out": str(self.directory / "trained"), "steps": 1,
                                      "data": {"paths": [str(self.corpus)],
                                               "tokenizer": str(self.model)}}))
        for args in (["train", recipe, "--out", ""],
                     ["train-tokenizer", "--data", self.corpus, "--out", ""],
                     ["convert", "--model", self.plain, "--dtype", "bf16", "--out", ""],
                     ["forward", "--model", self.plain, "--out", "", "--tokens",
                      self.plain / "expected.safetensors"]):
            done = run(*args)
            self.assertNotEqual(done.returncode, 0, args)
            self.assertEqual(done.stderr.count(b"\n"), 1, done.stderr)
        self.assertFalse((self.directory / "trained.run").exists())

    def test_chat_without_a_terminal(self):
        saved = self.directory / "saved.json"
        done = run("chat", "--model", self.model, "--max-tokens", 5, "--seed", 2,
                   stdin=f"the sea\n/system be brief\n/nothing\nland\n/save {saved}\n/quit\n")
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        self.assertIn("/nothing", done.stderr.decode())
        self.assertNotIn(b"> ", done.stdout)
        messages = json.loads(saved.read_text(encoding="utf-8"))
        self.assertEqual([m["role"] for m in messages],
                         ["system", "user", "assistant", "user", "assistant"])
        self.assertEqual([m["content"] for m in messages][1::2], ["the sea", "land"])
        for m in messages[2::2]:
            self.assertIn(m["content"], done.stdout.decode())

    def test_bits_per_byte(self):
        out = self.directory / "results.json"
        done = run("eval", "--task", "bpb", "--model", self.model, "--data", self.corpus, "--out",
                   out, "--window", 32, "--stride", 16, "--max-bytes", 2000)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        results = json.loads(out.read_text())
        self.assertEqual(results["settings"]["window"], 32)
        self.assertEqual(results["settings"]["stride"], 16)
        [source] = results["sources"]
        overall = results["overall"]
        self.assertEqual({k: v for k, v in source.items() if k != "source"}, overall)
        self.assertEqual(overall["bytes"], 2000)
        self.assertAlmostEqual(overall["loss"], overall["nats"] / overall["tokens"])
        self.assertAlmostEqual(overall["bits_per_byte"],
                               overall["nats"] / math.log(2) / overall["bytes"])
        self.assertIn(f"{overall['bits_per_byte']:.4f}", done.stdout.decode())
        self.assertEqual(run("eval", "--task", "mmlu", "--model", self.model).returncode, 2)

    def test_acceptance_refuses_what_it_cannot_measure(self):
        command = ["eval", "--task", "mtp_acceptance", "--model", self.model, "--data", self.corpus]
        done = run(*command)  # the model has no prediction module
        self.assertEqual(done.returncode, 1)
        self.assertIn("num_nextn_predict_layers", done.stderr.decode())
        self.assertEqual(run(*command, "--stride", 8).returncode, 2)
        self.assertEqual(run("eval", "--task", "bpb", *command[3:], "--every", 8).returncode, 2)

    def bench(self, *args):
        done = run("bench", *args, "--rounds", 1, "--json")
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return json.loads(done.stdout)

    def test_bench_of_a_model_directory(self):
        [decode] = self.bench("decode", "--model", self.plain, "--steps", 2)["results"]
        self.assertEqual((decode["name"], decode["bound"]), ("decode tiny-bf16", "bytes"))
        [prefill] = self.bench("prefill", "--model", self.plain, "--tokens", 8)["results"]
        self.assertEqual((prefill["name"], prefill["bound"]), ("prefill tiny-bf16", "flop"))
        for result in decode, prefill:
            self.assertGreater(result["tokens_per_s"], 0)
            self.assertGreater(result["limit"], 0)
        served = self.bench("serve", "--model", self.plain, "--streams", "1,3", "--tokens", 2,
                            "--prompt", 8)["results"]
        self.assertEqual([r["name"].split(" tiny")[0] for r in served],
                         ["serve streams", "serve streams", "serve first token",
                          "serve cached prefix"])
        self.assertEqual(served[1]["shape"], "3 x 2")
        diagnosis = self.bench("doctor", "--model", self.plain)
        self.assertEqual(diagnosis["results"][0]["name"], "read bandwidth")
        self.assertEqual(diagnosis["doctor"]["stored"]["weights"], "BF16")
        self.assertTrue(diagnosis["doctor"]["stored"]["fits"])
        self.assertGreater(diagnosis["doctor"]["stored"]["decode_bound_tokens_per_s"]["0"], 0)
        done = run("bench", "decode", "--model", self.directory / "none")
        self.assertEqual(done.returncode, 2)
        self.assertIn("neither a benchmark model", done.stderr.decode())

    def test_interrupt_ends_generation(self):
        process = subprocess.Popen(
            [MINKE, "generate", "--model", self.model, "--prompt", "the", "--max-tokens", "100000",
             "--ignore-eos"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertTrue(process.stdout.read(1))
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
        self.assertIn(process.returncode, (130, 0))  # 0: the context was full before

    def test_chat_on_a_terminal(self):
        pid, fd = pty.fork()
        if pid == 0:
            os.environ.update(TERM="xterm", XDG_STATE_HOME=str(self.directory / "state"),
                              LC_ALL="C")
            os.execv(MINKE, [MINKE, "chat", "--model", str(self.model), "--max-tokens", "3"])
        shown = b""

        def wait_for(text, times=1):
            nonlocal shown
            end = time.time() + 120
            while shown.count(text.encode()) < times:
                self.assertLess(time.time(), end, shown.decode(errors="replace"))
                if select.select([fd], [], [], 0.2)[0]:
                    shown += os.read(fd, 65536)

        wait_for("> ")
        # Wide characters: left over one, a letter in, and out again.
        os.write(fd, "/夜來\x1b[Dx\x7f\n".encode())
        wait_for("no command /夜來")
        os.write(fd, b"the sea\n")
        wait_for("cut")
        time.sleep(0.3)
        os.write(fd, b"half a line")
        wait_for("half a line")
        os.write(fd, b"\x03")  # takes the line away
        time.sleep(0.3)
        os.write(fd, b"\x03")  # leaves
        end = time.time() + 60
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                break
            self.assertLess(time.time(), end)
            if select.select([fd], [], [], 0.1)[0]:
                try:
                    os.read(fd, 65536)
                except OSError:
                    time.sleep(0.05)
        self.assertEqual(os.waitstatus_to_exitcode(status), 130)
        history = self.directory / "state" / "minke" / "chat_history"
        self.assertTrue(re.search("the.*sea", history.read_text(encoding="utf-8")))
        self.assertEqual(history.stat().st_mode & 0o077, 0)


if __name__ == "__main__":
    MINKE, GOLDEN = os.path.abspath(sys.argv[1]), Path(sys.argv[2])
    unittest.main(argv=[sys.argv[0]] + sys.argv[3:])
