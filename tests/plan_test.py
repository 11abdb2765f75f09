#!/usr/bin/env python3
"""minke plan schedule, eplb, time, search, calibrate and pages as a user runs them.

  plan_test.py MINKE GOLDEN_DIR

Standard library only.
"""
import json
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree
from pathlib import Path

MINKE = ""
GOLDEN = Path()


def run(*args):
    return subprocess.run([MINKE, "plan", *map(str, args)], capture_output=True, text=True, timeout=120)


class Plan(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def path(self, name):
        return Path(self.folder.name) / name

    def refused(self, result, *words):
        self.assertIn(result.returncode, (1, 2), result.stderr)
        self.assertEqual(len(result.stderr.strip().splitlines()), 1, result.stderr)
        self.assertEqual(result.stdout, "")
        for word in words:
            self.assertIn(word, result.stderr)


class Schedule(Plan):
    def test_json_is_the_golden_list(self):
        for file in sorted((GOLDEN / "dualpipe").glob("dualpipe*_*x*.json")):
            want = json.loads(file.read_text())
            result = run("schedule", "--kind", want["schedule"], "--ranks", want["num_ranks"],
                         "--chunks", want["num_chunks"], "--json")
            got = json.loads(result.stdout)
            for key, value in want.items():
                self.assertEqual(got[key], value, (file.name, key))

    def test_simulation_is_the_golden_row(self):
        rows = json.loads((GOLDEN / "dualpipe" / "bubbles.json").read_text())["rows"]
        for row in rows[::17]:
            result = run("schedule", "--kind", row["schedule"], "--ranks", row["num_ranks"],
                         "--chunks", row["num_chunks"], "--forward-time", row["F"],
                         "--backward-time", row["B"], "--weight-time", row["W"],
                         "--pair-time", row["FB"], "--json")
            simulation = json.loads(result.stdout)["simulation"]
            for key in ("sim_makespan", "sim_bubble_min", "sim_bubble_max", "formula_bubble"):
                self.assertAlmostEqual(simulation[key], row[key], places=9, msg=(key, row))

    def test_files_and_table(self):
        svg, html, trace = self.path("a.svg"), self.path("a.html"), self.path("a.json")
        result = run("schedule", "--kind", "dualpipe", "--ranks", 4, "--chunks", 10, "--svg", svg,
                     "--html", html, "--trace", trace)
        self.assertEqual((result.returncode, result.stdout), (0, ""))
        self.assertEqual(ElementTree.parse(svg).getroot().tag, "{http://www.w3.org/2000/svg}svg")
        self.assertNotIn("<script", html.read_text())
        self.assertGreater(len(json.loads(trace.read_text())["traceEvents"]), 60)
        table = run("schedule", "--kind", "dualpipe", "--ranks", 4, "--chunks", 10)
        self.assertIn("closed form: bubble 2, step 32; exact", table.stdout)

    def test_replicas_of_unequal_loads(self):
        result = run("schedule", "--kind", "1f1b", "--ranks", 4, "--chunks", 8, "--replicas", 8,
                     "--expert-group", 4, "--exchange-time", 0.5, "--load-spread", 0.2)
        self.assertIn("all 32 ranks", result.stdout)
        self.assertIn("does not hold", result.stdout)

    def test_refusals(self):
        good = {"--kind": "dualpipe", "--ranks": 4, "--chunks": 8}
        for change, *words in [
            ({"--ranks": 5}, "4 or 6"), ({"--chunks": 7}, "nearest: 8"), ({"--ranks": 2**40}, "nearest"),
            ({"--ranks": 2**70}, "--ranks"), ({"--ranks": -2}, "nearest: 2"), ({"--ranks": "x"}, "--ranks"),
            ({"--kind": "gpipe"}, "dualpipev"), ({"--forward-time": "nan"}, "forward-time"),
            ({"--forward-time": 0}, "forward-time"), ({"--weight-time": 3}, "backward-time"),
            ({"--pair-time": 1}, "nearest: 2"), ({"--chunks": 2**40}, "nearest: 524288"),
            ({"--replicas": 2**50}, "replicas"), ({"--replicas": 0}, "replicas"),
            ({"--replicas": 4, "--expert-group": 3}, "expert-group"), ({"--message-time": -1}, "message-time"),
            ({"--load-spread": 1}, "load-spread"), ({"--exchange-time": "inf"}, "exchange-time"),
            ({"--exchanges": 0}, "exchanges"), ({"--svg": "/nowhere/a.svg"}, "/nowhere"),
        ]:
            with self.subTest(change):
                arguments = [x for pair in {**good, **change}.items() for x in pair]
                self.refused(run("schedule", *arguments), *words)
        self.refused(run("schedule", "--kind", "1f1b"), "--ranks")
        self.refused(run())


class Eplb(Plan):
    def setUp(self):
        super().setUp()
        cases = json.loads((GOLDEN / "eplb" / "cases.json").read_text())["cases"]
        self.case = cases[0]
        inputs = ("weight", "num_replicas", "num_groups", "num_nodes", "num_gpus", "policy")
        self.good = {key: self.case[key] for key in inputs}

    def eplb(self, content, *flags):
        file = self.path("loads.json")
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        return run("eplb", "--loads", file, *flags)

    def test_json_is_the_golden_case(self):
        got = json.loads(self.eplb({**self.good, "other": [1]}, "--json").stdout)
        for key, value in got.items():
            self.assertEqual(value, self.case[key], key)
        self.assertEqual(len(got), 3)

    def test_table(self):
        self.assertIn("1.208x", self.eplb(self.good).stdout)

    def test_refusals(self):
        for key in ("weight", "num_replicas", "num_groups", "num_nodes", "num_gpus"):
            with self.subTest(key):
                self.refused(self.eplb({k: v for k, v in self.good.items() if k != key}), key)
                self.refused(self.eplb({**self.good, key: "x"}), key)
                self.refused(self.eplb({**self.good, key: None}), key)
                self.refused(self.eplb({**self.good, key: 1.5}), key)
        for change in [{"num_gpus": 7}, {"num_gpus": 0}, {"num_gpus": -8}, {"num_nodes": 2**40},
                       {"num_replicas": 2**63}, {"num_replicas": 8}, {"weight": []}, {"weight": [[]]},
                       {"weight": [[1, 2], [3]]}, {"weight": [1, 2]}, {"weight": [["a"] * 12]},
                       {"weight": [[float("nan")] * 12]}, {"weight": [[-1] * 12]}, {"weight": [[1e300] * 12]},
                       {"weight": [[None] * 12]}, {"policy": "global"}, {"policy": 3}]:
            with self.subTest(change):
                self.refused(self.eplb({**self.good, **change}))
        for text in ("", "[]", "3", "{", "null", "[" * 100000, '{"weight": [[1e999]]}'):
            with self.subTest(text[:30]):
                self.refused(self.eplb(text))
        self.refused(run("eplb", "--loads", self.path("missing.json")), "missing.json")
        self.refused(run("eplb", "--loads", self.folder.name))


class Time(Plan):
    def test_report_run(self):
        table = run("time", "--balance").stdout
        self.assertIn("published step of this run 19.926 s", table)
        got = json.loads(run("time", "--balance", "--json").stdout)
        self.assertAlmostEqual(got["step_s"], 19.926, delta=1)
        self.assertAlmostEqual(got["step_s"], got["pipeline_s"] + got["gradients_s"] + got["optimizer_s"], places=9)
        self.assertEqual((len(got["stages"]), len(got["ranks"])), (16, 16))
        for rank in got["ranks"]:
            self.assertAlmostEqual(sum(rank[k] for k in ("F", "FB", "B", "W", "bubble")), got["pipeline_s"], places=9)
        hours = 14.8e12 / (15360 * 4096) * got["step_s"] * 2048 / 3600
        self.assertAlmostEqual(got["device_hours"], hours, places=3)
        self.assertAlmostEqual(got["usd"], 2 * hours, places=3)

    def test_loads_and_tokens(self):
        even = json.loads(run("time", "--json").stdout)
        spread = json.loads(run("time", "--load-spread", 0.3, "--json").stdout)
        self.assertEqual((even["replicas_simulated"], spread["replicas_simulated"]), (1, 128))
        self.assertGreater(spread["step_s"], even["step_s"])
        trillion = json.loads(run("time", "--tokens", 1e12, "--json").stdout)
        self.assertAlmostEqual(trillion["days"] * 14.8, even["days"], places=6)

    def test_files(self):
        svg, html, trace = self.path("a.svg"), self.path("a.html"), self.path("a.json")
        result = run("time", "--svg", svg, "--html", html, "--trace", trace)
        self.assertEqual((result.returncode, result.stdout), (0, ""))
        self.assertEqual(ElementTree.parse(svg).getroot().tag, "{http://www.w3.org/2000/svg}svg")
        page = html.read_text()
        for word in ("Timeline", "Memory by rank", "activations", "Cost", "<svg"):
            self.assertIn(word, page)
        self.assertNotIn("<script", page)
        self.assertGreater(len(json.loads(trace.read_text())["traceEvents"]), 1000)
        for command, word in (("memory", "optimiser"), ("cost", "context extension")):
            result = run(command, "--html", html)
            self.assertEqual((result.returncode, result.stdout), (0, ""))
            self.assertIn(word, html.read_text())

    def test_refusals(self):
        for flags, *words in [
            (["--pipeline", 64], "61 layers", "--pipeline"), (["--expert", 48], "256 experts", "--expert 64"),
            (["--price", -1], "price"), (["--tokens", 0], "tokens"), (["--load-spread", 1], "load-spread"),
            (["--micro-batches", 7], "at least 32", "nearest"), (["--cluster", "h100x8"], "nothing works"),
            (["--recompute", "none"], "GB", "nearest"), (["--micro-batches", 2**24], "micro-batches", "nearest"),
            (["--schedule", "gpipe"], "dualpipev"),
            (["--layers-per-stage", "1,2"], "nearest"), (["--fp8-efficiency", 2], "fp8-efficiency"),
            (["--balance", "--layers-per-stage", ",".join(["4"] * 15 + ["1"])], "--balance"),
            (["--html", "/nowhere/a.html"], "/nowhere"), (["--model", "deepseek-v4"], "did you mean"),
        ]:
            with self.subTest(flags):
                self.refused(run("time", *flags), *words)


class Search(Plan):
    def test_ten_thousand_layouts(self):
        result = run("search", "--cluster", "h100x2520", "--batch", 20160, "--simulate", 20, "--json")
        got = json.loads(result.stdout)
        self.assertGreater(got["looked_at"], 10000)
        self.assertEqual(got["fit"] + sum(got["dropped"].values()), got["looked_at"])
        steps = [layout["simulated_step_s"] for layout in got["layouts"]]
        self.assertEqual(steps, sorted(steps))
        self.assertIn("does not fit into memory", run("search").stdout)

    def test_refusals(self):
        self.refused(run("search", "--batch", 7), "multiple of")
        self.refused(run("search", "--cluster", "h100", "--batch", 64), "more devices")
        self.refused(run("search", "--simulate", -1), "simulate")


class Calibrate(Plan):
    def bench(self, results, **machine):
        file = self.path(f"bench{len(list(Path(self.folder.name).iterdir()))}.json")
        machine = {"processor": "p", "isa": "avx2", "threads": 2, **machine}
        file.write_text(json.dumps({"machine": machine, "results": results}))
        return file

    LINES = [("linear", "bf16", 1e9, 0, 1e12, 0.8), ("linear", "fp32", 1e9, 0, 5e11, 0.8),
             ("linear experts", "bf16", 1e9, 0, 1e12, 0.7), ("gradient", "bf16", 1e9, 0, 1e12, 0.6),
             ("linear from memory", "bf16", 0, 1e6, 5e10, 0.9), ("pack", "bf16", 0, 1e6, 5e10, 0.8)]

    def lines(self, skip=""):
        return [{"name": n, "shape": "1 x 2 x 3", "form": f, "threads": 2, "seconds": 1e-3, "spread": 0, "flop": flop,
                 "bytes": b, "limit": limit, "share": share} for n, f, flop, b, limit, share in self.LINES if n != skip]

    def test_a_cluster_file_that_time_reads(self):
        out = self.path("cluster.json")
        result = run("calibrate", "--bench", self.bench(self.lines()), "--out", out)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("products 0.80", result.stdout)
        self.assertAlmostEqual(json.loads(out.read_text())["efficiency"]["attention"], 0.4)
        got = json.loads(run("time", "--cluster", out, "--model", "mini", "--sequence", 512, "--micro-batch", 8,
                             "--micro-batches", 1, "--recompute", "none", "--no-fp8", "--json").stdout)
        self.assertEqual((got["bubble_s"], got["layout"]["schedule"], got["layout"]["pipeline"]), (0, "1f1b", 1))
        self.assertGreater(got["step_s"], 0.8)
        slower = json.loads(run("time", "--cluster", out, "--model", "mini", "--sequence", 512, "--micro-batch", 8,
                                "--micro-batches", 1, "--bf16-efficiency", 0.4, "--json").stdout)
        self.assertGreater(slower["step_s"], got["step_s"])

    def test_generation_on_it(self):
        out = self.path("cluster.json")
        run("calibrate", "--bench", self.bench(self.lines()), "--out", out)
        flags = ("generate", "--cluster", out, "--model", "moonlight-9l")
        got = json.loads(run(*flags, "--json", "--weights", "bf16").stdout)
        self.assertAlmostEqual(got["decode_tokens_per_s"] * got["decode_bytes"], 0.9 * 5e10, delta=1)
        self.assertGreater(got["prefill_s"], 512 * 2 * 0.747e9 / 0.8e12)
        halved = json.loads(run(*flags, "--json", "--weights", "fp8").stdout)
        self.assertLess(halved["decode_bytes"], 0.6 * got["decode_bytes"])
        self.assertIn("bounds", run("generate").stdout)
        self.assertNotIn("bounds", run(*flags).stdout)
        self.refused(run(*flags, "--weights", "int3"), "int3", "fp8")
        self.refused(run(*flags, "--prompt", 0), "prompt")

    def test_refusals(self):
        out = self.path("cluster.json")
        good = self.bench(self.lines())
        for skip in ("linear", "pack", "linear from memory"):
            self.refused(run("calibrate", "--bench", self.bench(self.lines(skip)), "--out", out), skip)
        other = self.bench(self.lines(), threads=4)
        self.refused(run("calibrate", "--bench", good, other, "--out", out), "different machines")
        self.refused(run("calibrate", "--bench", self.path("none.json"), "--out", out), "none.json")
        self.refused(run("calibrate", "--bench", good, "--out", "/nowhere/c.json"), "/nowhere")
        self.refused(run("calibrate", "--bench", good, "--out", out, "--price", -1), "price")
        self.refused(run("calibrate", "--out", out), "--bench")
        for text in ("", "[]", "{", '{"machine": {}}', '{"machine": {"processor": "p", "isa": "a", "threads": 1e99}}'):
            good.write_text(text)
            self.refused(run("calibrate", "--bench", good, "--out", out), good.name)
        out.write_text('{"efficiency": {"products": 7}}')
        self.refused(run("time", "--cluster", out), "products")


if __name__ == "__main__":
    MINKE, GOLDEN = sys.argv[1], Path(sys.argv[2])
    unittest.main(argv=sys.argv[:1])
