#!/usr/bin/env python3
"""generate, chat, eval and serve on two processes under mpirun, the experts of the model that ships with
minke shared out between them: what one process says, and one line where a rank fails.

  inference_ranks_test.py MINKE MODEL      ends with status 77 where mpirun is missing or minke has no MPI

Standard library only.
"""
import concurrent.futures
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
from mpi_test import SETTINGS as MPI_SETTINGS, SKIPPED, said, why_skipped
import serve_test

TIMEOUT_S = 240
MINKE = ""
MODEL = Path()
PROMPTS = ("The", "The sea was calm and the ship", "Once upon a time there was " * 9)


def command(*args, ranks):
    launcher = ["mpirun", "--oversubscribe", "--bind-to", "none", "-np", str(ranks)] if ranks > 1 else []
    return [*launcher, MINKE, "--threads", "1", *map(str, args)]


def run(*args, ranks=2, stdin=""):
    return subprocess.run(command(*args, ranks=ranks), input=stdin, capture_output=True, text=True,
                          env={**os.environ, **MPI_SETTINGS}, timeout=TIMEOUT_S)


def ranks_of(mpirun):
    return [int(p) for p in Path(f"/proc/{mpirun.pid}/task/{mpirun.pid}/children").read_text().split()]


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Server:
    """minke serve, on one process or several."""

    def __init__(self, *flags, ranks):
        self.process = subprocess.Popen(
            command("serve", "--model", MODEL, "--port", 0, "--max-batch", 4, *flags, ranks=ranks),
            env={**os.environ, **MPI_SETTINGS}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.port = serve_test.Serve.wait_until_ready(self.process)
        self.ranks = ranks_of(self.process) if ranks > 1 else [self.process.pid]

    def ask(self, *args, **kwargs):
        return serve_test.Serve.ask(self, *args, **kwargs)

    def complete(self, prompt, seed):
        status, answer = self.ask("/v1/completions", {
            "model": "minke-tiny", "prompt": prompt, "max_tokens": 12, "seed": seed,
            "temperature": 0.8 if seed % 2 else 0})
        assert status == 200, answer
        return answer["choices"][0]["text"]

    def end(self):
        _, errors = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, errors.decode()


class InferenceRanks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = Path(tempfile.mkdtemp(prefix="minke_inference_ranks_"))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.directory)

    def test_generate(self):
        for compute, temperature, prompt in zip(("fp32", "bf16", "fp8"), (0.8, 0, 0.8), PROMPTS):
            args = ("generate", "--model", MODEL, "--prompt", prompt, "--max-tokens", 10, "--seed", 3,
                    "--temperature", temperature, "--compute", compute, "--ignore-eos", "--json")
            one, two = run(*args, ranks=1), run(*args)
            self.assertEqual(two.returncode, 0, two.stderr)
            self.assertEqual(json.loads(two.stdout)["ids"], json.loads(one.stdout)["ids"])
            self.assertEqual(len(said(two.stderr)), len(said(one.stderr)), two.stderr)

    def test_chat(self):
        args = ("chat", "--model", MODEL, "--max-tokens", 5, "--temperature", 0)
        one, two = (run(*args, ranks=n, stdin="the sea\nland\n/quit\n") for n in (1, 2))
        self.assertEqual((two.returncode, two.stdout), (0, one.stdout), two.stderr)

    def test_eval(self):
        text = self.directory / "text.txt"
        text.write_text("The ship went over the sea to the far shore of the land.\n" * 30)
        for task in ("bpb", "mtp_acceptance"):
            results = []
            for ranks in (1, 2):
                out = self.directory / f"{task}{ranks}.json"
                done = run("eval", "--task", task, "--model", MODEL, "--data", text, "--window", 64,
                           "--max-bytes", 1000, "--out", out, ranks=ranks)
                self.assertEqual(done.returncode, 0, done.stderr)
                results.append(json.loads(out.read_text()))
                del results[-1]["seconds"]
            self.assertEqual(*results)

    def test_serve(self):
        for draft in ("off", "always"):
            one, two = Server("--draft", draft, ranks=1), Server("--draft", draft, ranks=2)
            self.assertLess(resident_bytes(two.ranks[1]), resident_bytes(two.ranks[0]))
            requests = [(PROMPTS[i % 3], i) for i in range(9)]
            with concurrent.futures.ThreadPoolExecutor(9) as clients:
                expected = list(clients.map(lambda r: one.complete(*r), requests))
                self.assertEqual(list(clients.map(lambda r: two.complete(*r), requests)), expected)
            time.sleep(0.5)
            begun = [cpu_seconds(pid) for pid in two.ranks]
            time.sleep(2)
            spent = [cpu_seconds(pid) - b for pid, b in zip(two.ranks, begun)]
            self.assertLess(max(spent), 0.2, f"CPU seconds of ranks without work, in 2 s: {spent}")
            for server in one, two:
                os.kill(server.ranks[0], signal.SIGTERM)
                status, errors = server.end()
                self.assertEqual(status, 0, errors)
                self.assertIn("stopping", errors)

    def test_layers_and_experts_over_ranks(self):
        for layout, ranks, compute in ("2x1", 2, "bf16"), ("3x1", 3, "fp8"), ("2x2", 4, "fp32"):
            args = ("generate", "--model", MODEL, "--prompt", PROMPTS[2], "--max-tokens", 10, "--seed", 3,
                    "--temperature", 0.8, "--compute", compute, "--ignore-eos", "--json")
            one, spread = run(*args, ranks=1), run(*args, "--layout", layout, ranks=ranks)
            self.assertEqual(spread.returncode, 0, spread.stderr)
            self.assertEqual(json.loads(spread.stdout)["ids"], json.loads(one.stdout)["ids"], layout)
        text = self.directory / "layers.txt"
        text.write_text("The ship went over the sea to the far shore of the land.\n" * 30)
        results = []
        for flags, ranks in ((), 1), (("--layout", "2x2"), 4):
            out = self.directory / f"acceptance{ranks}.json"
            done = run("eval", "--task", "mtp_acceptance", "--model", MODEL, "--data", text, "--window", 64,
                       "--max-bytes", 1000, "--out", out, *flags, ranks=ranks)
            self.assertEqual(done.returncode, 0, done.stderr)
            results.append(json.loads(out.read_text())["overall"])
        self.assertEqual(*results)

    def test_serve_with_layers_over_ranks(self):
        one = Server("--draft", "always", ranks=1)
        two = Server("--draft", "always", "--layout", "2x1", ranks=2)
        requests = [(PROMPTS[i % 3], i) for i in range(9)]
        with concurrent.futures.ThreadPoolExecutor(9) as clients:
            expected = list(clients.map(lambda r: one.complete(*r), requests))
            self.assertEqual(list(clients.map(lambda r: two.complete(*r), requests)), expected)
        for server in one, two:
            os.kill(server.ranks[0], signal.SIGTERM)
            status, errors = server.end()
            self.assertEqual(status, 0, errors)

    def test_a_signal_that_mpirun_hands_on_drains(self):
        server = Server(ranks=2)
        os.kill(server.process.pid, signal.SIGUSR2)
        status, errors = server.end()
        self.assertEqual(status, 0, errors)
        self.assertIn("stopping", errors)

    def test_a_rank_that_dies_or_hangs_ends_the_job(self):
        server = Server("--no-warm-up", ranks=2)
        os.kill(server.ranks[1], signal.SIGKILL)
        status, errors = server.end()
        self.assertNotEqual(status, 0)
        self.assertIn("signal 9", errors)
        server = Server("--no-warm-up", "--rank-timeout", 10, ranks=2)
        time.sleep(11)  # longer than the bound, which is not for ranks without work
        server.complete("The", 0)
        os.kill(server.ranks[1], signal.SIGSTOP)
        with self.assertRaises(OSError):
            server.complete("The", 0)
        status, errors = server.end()
        self.assertNotEqual(status, 0)
        [line] = [line for line in said(errors) if "not complete" in line]
        self.assertRegex(line, r"minke: rank 0 of 2 on \S+, step \d+, experts of layer 1: the (send|receive) .*"
                               r" rank 1 .* was not complete within 10000 ms")

    def test_errors_are_said_once_with_the_status_of_one_process(self):
        odd = self.directory / "odd"
        odd.mkdir()
        for path in MODEL.iterdir():
            if path.name != "config.json":
                (odd / path.name).symlink_to(path.resolve())
        config = json.loads((MODEL / "config.json").read_text())
        config["num_experts_per_tok"] = config["n_routed_experts"] + 1
        (odd / "config.json").write_text(json.dumps(config))
        for ranks, args, status, expected in (
                (2, ("generate", "--model", MODEL, "--prompt-ids", "1,x"), 2, "is not a token id"),
                (2, ("generate", "--model", self.directory / "none", "--prompt-ids", "1"), 1, "none"),
                (2, ("generate", "--model", odd, "--prompt-ids", "1"), 1, "num_experts_per_tok"),
                (2, ("eval", "--model", MODEL), 2, "needs --data"),
                (2, ("generate", "--model", MODEL, "--prompt-ids", "1", "--layout", "2x2"), 1, "of 4 ranks, but 2"),
                (2, ("serve", "--model", MODEL, "--port", 0, "--layout", "2x1", "--prefix-dir", self.directory), 1,
                 "with --layout 1x2"),
                (2, ("serve", "--model", MODEL, "--host", "999.0.0.1"), 1, "999.0.0.1"),
                (2, ("generate", "--model", MODEL, "--prompt", "The", "--top-p", 2), 2, "--top-p"),
                (2, ("tokenize", "--model", MODEL), 2, "runs in one process, but 2 were started"),
                (3, ("generate", "--model", MODEL, "--prompt-ids", "1"), 1,
                 "20 routed experts of a layer cannot be shared out evenly over 3 ranks")):
            done = run(*args, ranks=ranks)
            lines = [line for line in said(done.stderr) if "instructions" not in line]
            self.assertEqual(done.returncode, status, done.stderr)
            self.assertTrue(len(lines) == 1 and expected in lines[0], done.stderr)


if __name__ == "__main__":
    MINKE, MODEL = os.path.abspath(sys.argv[1]), Path(sys.argv[2])
    if reason := why_skipped(MINKE):
        print(f"skipped: {reason}")
        sys.exit(SKIPPED)
    unittest.main(argv=[sys.argv[0]] + sys.argv[3:])
