#!/usr/bin/env python3
"""minke report as a user runs it, on synthetic runs.

    report_test.py MINKE                what is printed and written
    report_test.py MINKE --browser      the page in a headless Chromium; 77 (skipped) without one
    --screenshots DIR                   leaves pictures: light, dark, phone

Standard library only.
"""
import argparse
import html.parser
import json
import math
import pathlib
import random
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "web"))
from devtools import Browser, find_chromium  # noqa: E402

SKIPPED = 77
VOID = {"meta", "input", "br", "img", "link", "hr"}


def step_line(draw, n, step, lr, fp8):
    tokens = 2048 * step + (2048 * (step - n // 4) if step > n // 4 else 0)
    loss = 2 + 6 * math.exp(-8 * step / n) + 1.5 / (1 + step / 20) + draw.gauss(0, 0.05)
    worst = 1.2 + 3 / (1 + step / 30)
    line = {"step": step, "tokens": tokens,
            "loss": {"total": 1.3 * loss, "main": loss, "mtp": 0.3 * loss, "mtp_k": [loss + 0.2],
                     "balance": 6e-4},
            "batch": 8 if step <= n // 4 else 16, "gamma": 0.001,
            "mtp_lambda": 0.3 if step < 0.7 * n else 0.1, "lr": lr * min(1, step / 20),
            "grad_norm": abs(draw.gauss(1, 0.1)) + 8 / step, "worst_load_ratio": worst,
            "load_ratios": {str(i): worst - 0.1 * i for i in range(1, 4)},
            "tokens_per_s": draw.gauss(5000, 200)}
    if fp8:
        line["fp8"] = {str(i): {"x": [1e-5, 2e-3 * draw.random()], "dy": [0, 0.02 * draw.random()],
                                "w": [0, 1e-3]} for i in range(3)}
    if step % 5 == 0:
        line["loads"] = {str(i): [int(1000 * math.exp(draw.gauss(0, 0.9 / (1 + step / 60))))
                                  for _ in range(16)] for i in range(1, 4)}
    if step % (n // 8) == 0 or step == n:
        line.update(held_out=loss + 0.1, held_out_ema=loss + 0.05,
                    held_out_bits_per_byte=(loss + 0.1) / 1.9, mtp_acceptance=0.5 + 0.4 * step / n,
                    held_out_sources={"kjv": loss, "唐詩 <b>": loss + 1.1})
    return line


def write_run(out, seed, n=200, lr=1e-3, fp8=False):
    """A run's metrics.jsonl, with an event and a line that a killed process left half written."""
    draw = random.Random(seed)
    run = pathlib.Path(f"{out}.run")
    run.mkdir(parents=True)
    recipe = {"out": str(out), "seed": seed, "compute": "fp8" if fp8 else "bf16",
              "optimizer": {"lr": lr}}
    lines = [json.dumps({"step": 0, "start": True, "threads": 2, "recipe": recipe})]
    for step in range(1, n + 1):
        last = step_line(draw, n, step, lr, fp8)
        lines.append(json.dumps(last))
        if step == n // 2:
            lines.append(json.dumps({"step": step, "event": "spike", "tensor": None, "layer": None,
                                     "data": {"epoch": 0, "document": 3, "offset": 9},
                                     "message": "loss 5.1 is above <3.4>"}))
            lines.append('{"step": 3, "tok')
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return last


class Checker(html.parser.HTMLParser):
    """Every tag is closed in order; nothing is loaded."""

    def __init__(self):
        super().__init__()
        self.open, self.wrong, self.ids = [], [], set()

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "action"):
                self.wrong.append(f"<{tag} {name}={value}>")
            if name == "id" and value in self.ids:
                self.wrong.append(f"id {value} twice")
            if name == "id":
                self.ids.add(value)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> at line {self.getpos()[0]}")


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def report(minke, *arguments):
    done = subprocess.run([minke, "report", *map(str, arguments)], capture_output=True, timeout=120)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_what_is_printed(minke, folder):
    last = write_run(folder / "runs" / "one", 1, fp8=True)
    write_run(folder / "runs" / "two", 2, lr=2e-3)
    status, text, errors = report(minke, folder / "runs" / "one", folder / "runs" / "two.run")
    check(status == 0, errors)
    check(f"{last['held_out']:.4f}" in text, text)
    check("line 103: not a JSON object" in errors, errors)
    status, text, _ = report(minke, folder / "runs" / "one", "--json")
    [run] = json.loads(text)["runs"]
    check(run["held_out"] == last["held_out"] and run["steps"] == 200, run)
    check(run["events"] == {"spike": 1} and run["bad_lines"] == 1, run)
    check(run["load_ratios"].keys() == {"1", "2", "3"}, run)
    status, _, errors = report(minke, folder / "nothing")
    check(status == 1 and "nothing.run" in errors, errors)
    check(report(minke)[0] == 2, "without a run")


def test_the_page(minke, folder):
    page = folder / "report.html"
    status, _, errors = report(minke, folder / "runs" / "one", folder / "runs" / "two", "--out", page)
    check(status == 0, errors)
    text = page.read_text()
    checker = Checker()
    checker.feed(text)
    check(not checker.wrong and not checker.open, (checker.wrong[:5], checker.open))
    for part in ("唐詩 &lt;b&gt;", "loss 5.1 is above &lt;3.4&gt;", "MTP acceptance", "Layer 3",
                 "worst load", "optimizer.lr", "1 line of metrics.jsonl", "90.00 %"):
        check(part in text, f"{part} is not in the page")
    check("://" not in text, "an address is in the page")


def test_long_runs_make_no_long_page(minke, folder):
    write_run(folder / "long", 3, n=30_000)
    page = folder / "long.html"
    check(report(minke, folder / "long", "--out", page)[0] == 0, "a long run")
    check(page.stat().st_size < 1_200_000, f"{page.stat().st_size} bytes")


def in_browser(minke, folder, screenshots):
    write_run(folder / "runs" / "one", 1, fp8=True)
    write_run(folder / "runs" / "two", 2, lr=2e-3)
    page = folder / "report.html"
    report(minke, folder / "runs" / "one", folder / "runs" / "two", "--out", page)
    with Browser(find_chromium()) as browser:
        for theme, width in (("light", 1300), ("dark", 1300), ("light", 390)):
            browser.set_width(width, 2400)
            browser.call("Emulation.setEmulatedMedia",
                         features=[{"name": "prefers-color-scheme", "value": theme}])
            browser.call("Page.navigate", url=page.as_uri())
            browser.wait("document.readyState === 'complete' && location.protocol === 'file:'")
            check(browser.evaluate("document.documentElement.scrollWidth <= innerWidth"),
                  f"the page is wider than {width}")
            if screenshots:
                browser.screenshot(screenshots / f"report-{theme}-{width}.png")
        shown = ("[...document.querySelectorAll('.plot .{}')].filter((e) => "
                 "e.getBoundingClientRect().width > 0).length")
        check(browser.evaluate(shown.format("lin .r1")) > 5, "curves of the second run")
        check(browser.evaluate(shown.format("log .r1")) == 0, "two drawings at once")
        browser.click("[data-class=logx]")
        check(browser.evaluate(shown.format("lin .r1")) == 0, "the linear drawing is hidden")
        check(browser.evaluate(shown.format("log .r1")) > 5, "the logarithmic one is shown")
        browser.click("[data-run='1']")
        check(browser.evaluate(shown.format("log .r1")) == 0, "the second run is hidden")
        browser.evaluate(
            "(() => { const plot = [...document.querySelectorAll('.plot')].find((p) => "
            "p.getBoundingClientRect().width > 0), box = plot.getBoundingClientRect();"
            "plot.dispatchEvent(new PointerEvent('pointermove', {clientX: box.right - box.width / 10,"
            "clientY: box.top + 30})); })()")
        tip = browser.evaluate("document.getElementById('tip').innerText")
        check("tokens" in tip and "one: 2." in tip and "two" not in tip, f"tooltip: {tip!r}")
        check(browser.console == [], browser.console)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("minke")
    parser.add_argument("--browser", action="store_true")
    parser.add_argument("--screenshots", type=pathlib.Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="minke-report-") as name:
        folder = pathlib.Path(name)
        if arguments.browser:
            if not find_chromium():
                print("skipped: no chromium on this machine")
                return SKIPPED
            in_browser(arguments.minke, folder, arguments.screenshots)
            return 0
        for test in (test_what_is_printed, test_the_page, test_long_runs_make_no_long_page):
            test(arguments.minke, folder)
            print(f"ok  {test.__name__}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
