#!/usr/bin/env python3
"""Pictures of the runs of recipes/results/, as SVG.

    result_plots.py fp8|balance|mtp FOLDER OUT.svg      the runs are FOLDER/VARIANT-SEED

Standard library only. A variant of which no run is there is left out; thin lines are seeds, thick
ones their mean.
"""
import argparse
import html
import pathlib
import statistics
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from result_runs import BASE, NAMES, WINDOW, read_variants, running_mean  # noqa: E402

WIDTH, HEIGHT = 720, 340
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 40, 44
COLOURS = ["#4269d0", "#d9730d", "#3a8f3a", "#9a4fb8"]
POINTS = 150  # of a curve, at most


def ticks(low, high, n=6):
    """Round values from low to high, about n of them."""
    step = 10.0 ** len(str(int(high - low)))
    for divisor in (2, 2.5, 2) * 12:
        if (high - low) / step >= n:
            break
        step /= divisor
    first = int(low / step) - 1
    values = (step * (first + i) for i in range(4 * n + 4))
    return [v for v in values if low - 1e-9 * step <= v <= high + 1e-9 * step]


class Chart:
    """A line chart. Curves are {x: y}; each belongs to a name, which has one colour."""

    def __init__(self, title, x_label, y_label):
        self.title, self.x_label, self.y_label = title, x_label, y_label
        self.curves, self.names = [], []

    def add(self, name, curves):
        self.names.append(name)
        colour = COLOURS[(len(self.names) - 1) % len(COLOURS)]
        curves = [c for c in curves if c]
        for curve in curves:
            self.curves.append((colour, 0.8 if len(curves) > 1 else 2, curve))
        if len(curves) > 1:
            shared = set.intersection(*(set(c) for c in curves))
            mean = {x: statistics.fmean(c[x] for c in curves) for x in shared}
            self.curves.append((colour, 2.2, mean))

    def svg(self):
        xs = [x for _, _, c in self.curves for x in c]
        ys = [y for _, _, c in self.curves for y in c.values()]
        if not xs:
            raise SystemExit("no curve to draw")
        x_low, x_high, y_low, y_high = min(xs), max(xs), min(ys), max(ys)
        margin = 0.04 * (y_high - y_low or 1)
        y_low, y_high = y_low - margin, y_high + margin

        def at(x, y):
            return (LEFT + (x - x_low) / (x_high - x_low or 1) * (WIDTH - LEFT - RIGHT),
                    HEIGHT - BOTTOM - (y - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM))

        def text(x, y, what, anchor="middle", extra=""):
            return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{html.escape(what)}</text>'

        def line(a, b, colour):
            return f'<path d="M{a[0]:.1f},{a[1]:.1f}L{b[0]:.1f},{b[1]:.1f}" stroke="{colour}"/>'

        out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
               f'font-size="12" fill="#333"><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
               text(WIDTH / 2, 16, self.title, extra=' font-size="14"')]
        for y in ticks(y_low, y_high):
            out += [line(at(x_low, y), at(x_high, y), "#ddd"),
                    text(LEFT - 6, at(x_low, y)[1] + 4, f"{y:.4g}" if abs(y) > 1e-9 else "0", "end")]
        for x in ticks(x_low, x_high):
            out += [line(at(x, y_low), at(x, y_high), "#eee"),
                    text(at(x, y_low)[0], HEIGHT - BOTTOM + 16, f"{x:g}")]
        out += [text(WIDTH / 2, HEIGHT - 8, self.x_label),
                text(0, 0, self.y_label, extra=f' transform="translate(14 {HEIGHT / 2}) rotate(-90)"')]
        for colour, width, curve in self.curves:
            points = sorted(curve.items())
            points = points[::-(-len(points) // POINTS)] + points[-1:]
            path = "L".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y in points)
            out.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="{width}"'
                       f'{"" if width >= 2 else " opacity=" + chr(34) + "0.45" + chr(34)}/>')
        x = LEFT
        for i, name in enumerate(self.names):
            out += [f'<rect x="{x}" y="25" width="14" height="4" fill="{COLOURS[i % len(COLOURS)]}"/>',
                    text(x + 19, 31, name, "start")]
            x += 40 + 7 * len(name)
        return "\n".join(out) + "\n</svg>\n"


def fp8(folder):
    names = NAMES["fp8"]
    variants = read_variants(folder, names)
    base = {seed: run.running_mean() for seed, run in variants.pop(BASE, {}).items()}
    chart = Chart(f"Main loss against BF16 of the same seed, running mean over {WINDOW} steps", "step", "%")
    for name, runs in variants.items():
        curves = []
        for seed, run in runs.items():
            mine, theirs = run.running_mean(), base.get(seed, {})
            curves.append({s: 100 * (mine[s] / theirs[s] - 1) for s in mine if s in theirs})
        chart.add(names[name], curves)
    return chart


def balance(folder):
    names = NAMES["balance"]
    chart = Chart("Largest expert load over the mean, mean over layers and 20 steps", "step", "times the mean")
    for name, runs in read_variants(folder, names).items():
        chart.add(names[name], [running_mean({line["step"]: statistics.fmean(line["load_ratios"].values())
                                              for line in run.steps if line.get("load_ratios")}, 20)
                                for run in runs.values()])
    return chart


def mtp(folder):
    names = NAMES["mtp"]
    chart = Chart("Held-out loss of the main head, MTP on and off", "step", "nats a token")
    for name, runs in read_variants(folder, names).items():
        chart.add(names[name], [{line["step"]: line["held_out"] for line in run.steps if line.get("held_out")}
                                for run in runs.values()])
    return chart


CHARTS = {"fp8": fp8, "balance": balance, "mtp": mtp}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chart", choices=CHARTS)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    options = parser.parse_args()
    options.out.write_text(CHARTS[options.chart](options.folder).svg())
    return 0


if __name__ == "__main__":
    sys.exit(main())
