#!/usr/bin/env python3
"""tools/result_runs.py and result_plots.py on synthetic runs with known answers. Standard library only."""
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

sys.dont_write_bytecode = True
TOOL = pathlib.Path(__file__).resolve().parent.parent / "tools" / "result_runs.py"


def write_run(out, loss, last, load=2.0, n=100):
    run = pathlib.Path(f"{out}.run")
    run.mkdir(parents=True)
    lines = ['{"step": 0, "start": true}']
    for step in range(1, n + 1):
        lines.append(json.dumps({"step": step, "tokens": 10 * step, "loss": {"main": loss(step)},
                                 "tokens_per_s": 5.0, "load_ratios": {"2": load, "10": 2 * load}}))
    lines.append(json.dumps({"step": n + 1, "tokens": 10 * (n + 1), "loss": {"main": loss(n + 1)},
                             "tokens_per_s": 5.0, "load_ratios": {"2": load, "10": 2 * load}, **last}))
    (run / "metrics.jsonl").write_text("\n".join(lines + ['{"step": 3, "lo']))
    (run / "process.json").write_text('{"peak_bytes": 104857600}')


class ResultRuns(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="minke-results-")
        self.folder = pathlib.Path(self.temporary.name)
        self.addCleanup(self.temporary.cleanup)

    def tool(self, *arguments):
        return subprocess.run([sys.executable, TOOL, *map(str, arguments)], capture_output=True,
                              text=True, timeout=60)

    def rows(self, table):
        done = self.tool(table, self.folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        return [[cell.strip() for cell in line.strip("|").split("|")]
                for line in done.stdout.splitlines() if line.startswith("|")]

    def test_relative_error_of_the_running_mean(self):
        for seed in 1, 2:
            write_run(self.folder / f"base-{seed}", lambda s: 4 - 0.01 * s, {"held_out": 3.0})
            # Noise that a mean over 50 steps takes away, and a thousandth on top.
            write_run(self.folder / f"fp8-float-{seed}",
                      lambda s: 1.001 * (4 - 0.01 * s) + (0.5 if s % 2 else -0.5),
                      {"held_out": 3.0 + 0.1 * seed})
        rows = self.rows("fp8")
        self.assertEqual([row[0] for row in rows[2:]], ["BF16", "FP8, FP32 scales"])
        self.assertEqual(rows[2][1:], ["2", "3.0000 ± 0.0000", "-", "-", "100 ± 0", "5 ± 0"])
        self.assertEqual(rows[3][2:5], ["3.1500 ± 0.0707", "0.100 %", "0.100 %"])

    def test_balance_by_layer(self):
        write_run(self.folder / "base-1", lambda s: 2, {"held_out": 3.0}, load=1.25)
        write_run(self.folder / "batch-1", lambda s: 2, {"held_out": 3.25}, load=3)
        rows = self.rows("balance")
        self.assertEqual(rows[0][4:], ["layer 2", "layer 10"])
        self.assertEqual(rows[2][2:], ["3.0000", "-", "1.25", "2.50"])
        self.assertEqual(rows[3], ["batch-wise loss", "1", "3.2500", "+0.2500", "3.00", "6.00"])

    def test_mtp_pairs_seeds(self):
        for seed, held_out in (1, 3.0), (2, 4.0):
            write_run(self.folder / f"base-{seed}", lambda s: 2,
                      {"held_out": held_out, "mtp_acceptance": 0.5})
            write_run(self.folder / f"no-mtp-{seed}", lambda s: 2, {"held_out": held_out - 0.5})
        rows = self.rows("mtp")
        self.assertEqual(rows[2][4], "50.0 ± 0.0")
        self.assertEqual(rows[3][3:5], ["-0.5000 ± 0.0000", "-"])

    def test_a_finished_run_is_not_run_again(self):
        out = self.folder / "a"
        script = (f"import pathlib; pathlib.Path({str(out)!r}).mkdir(); "
                  f"pathlib.Path({str(out) + '.run'!r}).mkdir(exist_ok=True)")
        command = ["train", out, "--", sys.executable, "-c"]
        self.assertEqual(self.tool(*command, script).returncode, 0)
        record = json.loads((self.folder / "a.run" / "process.json").read_text())
        self.assertGreater(record["peak_bytes"], 1 << 20)
        (out / "config.json").write_text("{}")
        self.assertEqual(self.tool(*command, "raise SystemExit(9)").returncode, 0)
        (out / "config.json").unlink()
        self.assertEqual(self.tool(*command, "raise SystemExit(9)").returncode, 9)

    def test_a_run_without_steps_is_named(self):
        (self.folder / "base-1.run").mkdir()
        (self.folder / "base-1.run" / "metrics.jsonl").write_text("")
        done = self.tool("mtp", self.folder)
        self.assertEqual(done.returncode, 1)
        self.assertIn("base-1.run/metrics.jsonl", done.stderr)

    def picture(self, chart):
        out = self.folder / "chart.svg"
        done = subprocess.run([sys.executable, TOOL.with_name("result_plots.py"), chart, self.folder, out],
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        root = xml.etree.ElementTree.parse(out).getroot()
        space = "{http://www.w3.org/2000/svg}"
        texts = [t.text for t in root.iter(space + "text")]
        curves = [p for p in root.iter(space + "path") if p.get("stroke-width")]
        return texts, curves

    def test_pictures(self):
        for seed in 1, 2:
            write_run(self.folder / f"base-{seed}", lambda s: 4 - 0.01 * s, {"held_out": 3.0})
            write_run(self.folder / f"rounding-{seed}", lambda s: (4 - 0.01 * s) * (1 + 0.01 * seed),
                      {"held_out": 3.0})
        texts, curves = self.picture("fp8")
        self.assertIn("BF16, sums in another order", texts)
        self.assertEqual(len(curves), 3)  # two seeds and their mean
        # 1 % and 2 % above, all the way: three flat lines, the mean half way between.
        heights = [{point.split(",")[1] for point in c.get("d")[1:].split("L")} for c in curves]
        self.assertEqual([len(h) for h in heights], [1, 1, 1])
        low, high, mean = (float(h.pop()) for h in heights)
        self.assertGreater(low, high)  # SVG counts downwards
        self.assertAlmostEqual(mean, (low + high) / 2, delta=0.1)
        texts, curves = self.picture("balance")
        self.assertEqual(len(curves), 3)
        self.assertIn("biases (auxiliary-loss-free)", texts)
        texts, curves = self.picture("mtp")
        self.assertEqual(len(curves), 3)


if __name__ == "__main__":
    unittest.main()
