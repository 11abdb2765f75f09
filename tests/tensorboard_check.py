#!/usr/bin/env python3
"""What TensorBoard itself reads from the event files of a run, against its metrics.jsonl.

    python3 -m venv /tmp/tb && /tmp/tb/bin/pip install tensorboard 'setuptools<81'
    /tmp/tb/bin/python tests/tensorboard_check.py OUT.run

An extra beside the tests: it needs the package `tensorboard`. Every number of every step must be
there once, also in a run that was resumed; the recipe must be a text, loads histograms.
"""
import json
import math
import pathlib
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def numbers(name, value, out):
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return
    if isinstance(value, (int, float)):
        out[name] = value
    elif isinstance(value, dict):
        for key, inner in value.items():
            numbers(f"{name}.{key}", inner, out)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            numbers(f"{name}.{i}", inner, out)


def expected_of(path):
    """({tag: {step: number}}, {tag of a histogram: {step: sum of loads}})"""
    scalars, histograms = {}, {}
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        if "start" in entry or "event" in entry:
            continue
        flat = {}
        for key, value in entry.items():
            if key == "loads":
                for layer, loads in value.items():
                    histograms.setdefault(f"loads.{layer}", {})[entry["step"]] = sum(loads)
            elif key != "step":
                numbers(key, value, flat)
        for tag, value in flat.items():
            scalars.setdefault(tag, {})[entry["step"]] = value
    return scalars, histograms


def main():
    run = pathlib.Path(sys.argv[1])
    scalars, histograms = expected_of(run / "metrics.jsonl")
    found = EventAccumulator(str(run / "tensorboard"),
                             size_guidance={"scalars": 0, "histograms": 0, "tensors": 0})
    found.Reload()
    tags = found.Tags()
    wrong = []
    for tag, values in scalars.items():
        seen = [(e.step, e.value) for e in found.Scalars(tag)] if tag in tags["scalars"] else []
        if [step for step, _ in seen] != sorted(values):
            wrong.append(f"{tag}: {len(seen)} steps, expected {len(values)}, each once, in order")
        wrong += [f"{tag}, step {step}: {value}, expected {values[step]}" for step, value in seen
                  if step in values and not math.isclose(value, values[step], rel_tol=1e-6)]
    for tag, values in histograms.items():
        seen = {e.step: e.histogram_value.num for e in found.Histograms(tag)}
        if seen != values:
            wrong.append(f"{tag}: histograms of {len(seen)} steps, expected {len(values)}")
    if not any(tag.startswith("recipe") for tag in tags["tensors"]):
        wrong.append(f"no text 'recipe'; texts: {tags['tensors']}")
    print("\n".join(wrong) if wrong else
          f"ok: {len(scalars)} scalars, {len(histograms)} histograms, the recipe")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
