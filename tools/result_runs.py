#!/usr/bin/env python3
"""Runs of recipes/results/ and the tables of what they say.

    result_runs.py train OUT -- COMMAND...   runs COMMAND unless OUT is finished; peak memory into
                                             OUT.run/process.json
    result_runs.py fp8|balance|mtp FOLDER    the table, as Markdown, of the runs FOLDER/VARIANT-SEED

Standard library only. A variant of which no run is there is left out of its table.
"""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys

BASE = "base"
WINDOW = 50  # steps of the running mean in which losses are compared
END = 0.1    # part of the steps that "at the end" means


def write_json(path, value):
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value) + "\n")
    partial.replace(path)


def train(out, command):
    """The exit status. The largest memory of all sessions of a run is kept."""
    if (out / "config.json").exists():
        print(f"{out}: finished before")
        return 0
    record = pathlib.Path(f"{out}.run") / "process.json"
    process = subprocess.Popen(command)
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except KeyboardInterrupt:  # the command has it too, and leaves a checkpoint
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if record.parent.is_dir():
        before = json.loads(record.read_text())["peak_bytes"] if record.exists() else 0
        write_json(record, {"peak_bytes": max(before, 1024 * usage.ru_maxrss)})
    return process.returncode


def running_mean(values, window):
    """{x: mean of the values over the `window` points that end there} of {x: value}"""
    xs = sorted(values)
    return {xs[i]: statistics.fmean(values[x] for x in xs[i + 1 - window:i + 1])
            for i in range(window - 1, len(xs))}


class Run:
    """The steps of a metrics.jsonl; what cannot be read is left out."""

    def __init__(self, out):
        self.steps, self.seconds = [], 0.0
        directory = pathlib.Path(f"{out}.run")
        for text in (directory / "metrics.jsonl").read_text(errors="replace").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if isinstance(line, dict) and "loss" in line:
                self.steps.append(line)
        if not self.steps:
            raise SystemExit(f"{directory}/metrics.jsonl holds no step")
        tokens = 0
        for line in self.steps:
            self.seconds += (line["tokens"] - tokens) / line["tokens_per_s"]
            tokens = line["tokens"]
        self.tokens_per_s = tokens / self.seconds
        process = directory / "process.json"
        self.peak_mib = (json.loads(process.read_text())["peak_bytes"] / 2**20
                         if process.exists() else None)

    def last(self, key):
        values = [line[key] for line in self.steps if line.get(key) is not None]
        return values[-1] if values else None

    def end(self):
        return self.steps[-max(1, round(END * len(self.steps))):]

    def running_mean(self):
        """{step: mean of the main loss over WINDOW steps that end there}"""
        return running_mean({line["step"]: line["loss"]["main"] for line in self.steps}, WINDOW)

    def worst_loads(self):
        """{layer: mean at the end of the largest load over the mean}"""
        end = self.end()
        return {layer: statistics.fmean(line["load_ratios"][layer] for line in end)
                for layer in end[-1].get("load_ratios", {})}


def loss_errors(run, base):
    """Relative errors of the running mean, at each step that both have."""
    mine, theirs = run.running_mean(), base.running_mean()
    return [abs(mine[step] - theirs[step]) / theirs[step] for step in mine if step in theirs]


def read_variants(folder, names):
    """{variant: {seed: Run}}"""
    variants = {}
    for name in names:
        runs = {}
        for path in sorted(folder.glob(f"{name}-*.run")):
            found = re.fullmatch(rf"{re.escape(name)}-(\d+)\.run", path.name)
            if found and (path / "metrics.jsonl").exists():
                runs[int(found[1])] = Run(str(path)[:-len(".run")])
        if runs:
            variants[name] = runs
    return variants


def spread(values, digits=4):
    """"mean ± standard deviation" of what is there; the deviation needs two values."""
    values = [v for v in values if v is not None]
    if not values:
        return "-"
    text = f"{statistics.fmean(values):.{digits}f}"
    return text + (f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else "")


def against_base(runs, base, key):
    """The difference to the base run of the same seed: seeds differ more than variants do."""
    both = [seed for seed in runs if seed in base]
    pairs = [(runs[seed].last(key), base[seed].last(key)) for seed in both]
    return [a - b for a, b in pairs if a is not None and b is not None]


def markdown(columns, rows):
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join(["---"] * len(columns)) + " |"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def signed(values):
    return spread(values) if not values or statistics.fmean(values) < 0 else "+" + spread(values)


NAMES = {
    "fp8": {BASE: "BF16", "fp8-float": "FP8, FP32 scales",
            "fp8-power-of-two": "FP8, scales powers of two", "rounding": "BF16, sums in another order"},
    "balance": {BASE: "biases (auxiliary-loss-free)", "sequence": "sequence-wise loss",
                "batch": "batch-wise loss"},
    "mtp": {BASE: "on", "no-mtp": "off"},
}


def fp8_table(folder):
    names = NAMES["fp8"]
    variants = read_variants(folder, names)
    base = variants.get(BASE, {})
    rows = []
    for name, runs in variants.items():
        errors = [] if name == BASE else [loss_errors(runs[seed], base[seed])
                                          for seed in runs if seed in base]
        errors = [100 * e for of_run in errors for e in of_run]
        rows.append([
            names[name], str(len(runs)), spread([r.last("held_out") for r in runs.values()]),
            f"{statistics.fmean(errors):.3f} %" if errors else "-",
            f"{max(errors):.3f} %" if errors else "-",
            spread([r.peak_mib for r in runs.values()], 0),
            spread([r.tokens_per_s for r in runs.values()], 0)])
    columns = ["arithmetic", "seeds", "held-out loss", "relative loss error, mean", "largest",
               "peak memory, MiB", "tokens/s"]
    return markdown(columns, rows) + (
        f"\n\nRelative error of the main loss, running mean over {WINDOW} steps, against BF16 of the "
        "same seed; the report has below 0.25 %. ±: standard deviation over seeds.")


def balance_table(folder):
    names = NAMES["balance"]
    variants = read_variants(folder, names)
    loads = {name: [r.worst_loads() for r in runs.values()] for name, runs in variants.items()}
    layers = sorted({layer for of_runs in loads.values() for of_run in of_runs for layer in of_run},
                    key=int)
    rows = []
    for name, runs in variants.items():
        difference = [] if name == BASE else against_base(runs, variants.get(BASE, {}), "held_out")
        rows.append([names[name], str(len(runs)),
                     spread([r.last("held_out") for r in runs.values()]),
                     signed(difference) if difference else "-"]
                    + [spread([of_run.get(layer) for of_run in loads[name]], 2)
                       for layer in layers])
    columns = ["balance", "seeds", "held-out loss", "against biases"]
    return markdown(columns + [f"layer {layer}" for layer in layers], rows) + (
        f"\n\nLayers: largest load over mean of a step's batch, mean over the last {END:.0%} of the "
        "steps. ±: standard deviation over seeds, of differences between runs of one seed.")


def mtp_table(folder):
    names = NAMES["mtp"]
    variants = read_variants(folder, names)
    rows = []
    for name, runs in variants.items():
        difference = [] if name == BASE else against_base(runs, variants.get(BASE, {}), "held_out")
        acceptance = [r.last("mtp_acceptance") for r in runs.values()]
        rows.append([
            names[name], str(len(runs)), spread([r.last("held_out") for r in runs.values()]),
            signed(difference) if difference else "-",
            spread([None if a is None else 100 * a for a in acceptance], 1),
            spread([r.tokens_per_s for r in runs.values()], 0)])
    columns = ["MTP", "seeds", "held-out loss, main head", "against on", "acceptance, %", "tokens/s"]
    return markdown(columns, rows) + (
        "\n\nAcceptance on about 512 held-out positions a run; the report has 85 to 90 %. "
        "±: standard deviation over seeds, of differences between runs of one seed.")


TABLES = {"fp8": fp8_table, "balance": balance_table, "mtp": mtp_table}


def main():
    arguments = sys.argv[1:]
    if arguments[:1] == ["train"] and len(arguments) > 3 and arguments[2] == "--":
        return train(pathlib.Path(arguments[1]), arguments[3:])
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("folder", type=pathlib.Path)
    options = parser.parse_args(arguments)
    print(TABLES[options.table](options.folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
