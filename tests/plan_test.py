#!/usr/bin/env python3
"""minke plan schedule and eplb as a user runs them.

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


if __name__ == "__main__":
    MINKE, GOLDEN = sys.argv[1], Path(sys.argv[2])
    unittest.main(argv=sys.argv[:1])
