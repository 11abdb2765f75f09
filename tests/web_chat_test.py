#!/usr/bin/env python3
"""The web chat in a real browser: a headless Chromium types, sends, stops, regenerates and reads.

    web_chat_test.py PAGE            PAGE: src/serve/web/index.html, served by a small fake server
    web_chat_test.py --url URL       against a running `minke serve`: what any model can show
    --screenshots DIR                leaves pictures: light, dark, phone

Exits with 77, which means skipped, where there is no Chromium.
"""
import argparse
import json
import pathlib
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "web"))
from devtools import Browser, find_chromium  # noqa: E402
from fake_server import KEY, FakeServer  # noqa: E402

SKIPPED = 77
LAST = "[...document.querySelectorAll('.message.assistant')].at(-1)"
TEXT = f"{LAST}.querySelector(':scope > .text').innerText"
IDLE = "document.getElementById('stop').hidden"


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def same(found, expected, what):
    check(found == expected, f"{what}: found {found!r}, expected {expected!r}")


class Chat:
    """The page as a user sees it."""

    def __init__(self, browser, timeout_s):
        self.browser = browser
        self.timeout_s = timeout_s

    def type(self, text):
        self.browser.evaluate("document.getElementById('input').focus()")
        self.browser.type(text)
        self.browser.wait(f"document.getElementById('input').value.endsWith({json.dumps(text)})")

    def send(self, text):
        self.type(text)
        self.browser.press("Enter", 13)
        self.browser.wait("document.getElementById('input').value === ''")

    def wait_answer(self):
        self.browser.wait(f"{IDLE} && {LAST} && ({TEXT}.trim() || "
                          f"{LAST}.querySelector('.failure'))", self.timeout_s)
        return self.last_text()

    def ask(self, text):
        self.send(text)
        return self.wait_answer()

    def last_text(self):
        return self.browser.evaluate(TEXT)

    def count(self, selector):
        return self.browser.evaluate(f"document.querySelectorAll({json.dumps(selector)}).length")

    def regenerate(self):
        self.browser.evaluate(f"{LAST}.querySelector('.again').click()")
        self.browser.wait(f"!{IDLE}")

    def new(self):
        self.browser.click("#new")
        self.browser.wait("document.querySelectorAll('.message').length === 0")


# -- with the fake server ---------------------------------------------------------------------------


def streams_and_sends_history(chat, server):
    server.pause_s = 0.05
    chat.send("hello there, tell me something that takes a while")
    chat.browser.wait(f"!{IDLE} && {TEXT}.length > 5")
    check(not chat.browser.evaluate(IDLE), "a part of the answer is shown while it is written")
    same(chat.wait_answer(), "echo 1: hello there, tell me something that takes a while", "answer")
    chat.ask("and again")
    server.pause_s = 0.005
    roles = [m["role"] for m in server.requests[-1]["messages"]]
    same(roles, ["user", "assistant", "user"], "roles of the second request")
    check(server.requests[-1]["stream_options"] == {"include_usage": True}, "usage is asked for")
    same(server.requests[-1]["model"], "minke-test", "model")
    numbers = chat.browser.evaluate(f"{LAST}.querySelector('.numbers').innerText")
    for part in ("tokens/s", "tokens", "first after", "85 % of drafts"):
        check(part in numbers, f"\"{part}\" is shown; found \"{numbers}\"")


def shift_enter_and_input_methods_do_not_send(chat, server):
    before = len(server.requests)
    chat.type("one")
    chat.browser.press("Enter", 13, shift=True)
    chat.type("two")
    same(chat.browser.evaluate("document.getElementById('input').value"), "one\ntwo", "input")
    chat.browser.evaluate(
        "document.getElementById('input').dispatchEvent(new KeyboardEvent('keydown', "
        "{key: 'Enter', isComposing: true, bubbles: true, cancelable: true}))")
    time.sleep(0.1)
    same(len(server.requests), before, "requests while a character is composed")
    chat.browser.press("Enter", 13)
    chat.wait_answer()
    same(server.requests[-1]["messages"][-1]["content"], "one\ntwo", "what was sent")


def markdown_is_shown_and_harmless(chat, server):
    chat.ask("markdown")
    for selector, n in {"h2": 1, "strong": 1, "em": 1, "table": 1, "tbody tr": 2, "ol > li": 2,
                        "ol ul > li": 2, ".code pre": 1, ".code button": 1, "blockquote": 1,
                        "a[href='https://example.org/tides']": 1, "img": 0, "script": 0}.items():
        found = chat.browser.evaluate(f"{LAST}.querySelectorAll({json.dumps('.text ' + selector)}).length")
        same(found, n, selector)
    text = chat.last_text()
    for part in ("<img src=x", "<script>", "a_b_c", "**open", 'return "<b>"'):
        check(part in text, f"{part} is shown as text")
    same(chat.count("a[href^='javascript']"), 0, "links that are scripts")
    same(chat.browser.evaluate("typeof window.broken"), "undefined", "text that became a script")


def stops(chat, server):
    left = server.left
    chat.send("slow")
    chat.browser.wait(f"{TEXT}.includes('word3')")
    chat.browser.click("#stop")
    chat.browser.wait(IDLE)
    text = chat.last_text()
    check(text.startswith("word0") and "word500" not in text, f"the part so far stays: {text[:40]}")
    end = time.monotonic() + 10
    while server.left == left and time.monotonic() < end:
        time.sleep(0.05)
    same(server.left, left + 1, "answers that the server saw abandoned")


def regenerates_and_edits(chat, server):
    chat.new()
    first = chat.ask("once more")
    chat.regenerate()
    second = chat.wait_answer()
    check(first != second, "another answer")
    same(chat.count(".message"), 2, "messages")
    same(len(server.requests[-1]["messages"]), 1, "messages sent")
    chat.browser.evaluate("document.querySelector('.message.user .row button').click()")
    chat.browser.evaluate("document.querySelector('.edit textarea').value = 'changed'")
    chat.browser.click(".edit .main-action")
    check("changed" in chat.wait_answer(), "the edited message is answered")
    same(chat.count(".message"), 2, "messages after the edit")


def thinking_is_folded(chat, server):
    same(chat.ask("think"), "Therefore 4.", "answer")
    check(not chat.browser.evaluate(f"{LAST}.querySelector('details.thinking').open"), "it is folded")
    chat.browser.evaluate(f"{LAST}.querySelector('summary').click()")
    check("Two and two: add." in chat.browser.evaluate(f"{LAST}.innerText"), "it can be read")
    chat.ask("next")
    check("Two and" not in json.dumps(server.requests[-1]), "thoughts are not sent back")


def errors_are_explained_and_retried(chat, server):
    chat.ask("busy")
    check("busy" in chat.browser.evaluate(f"{LAST}.querySelector('.failure').innerText"), "it says busy")
    chat.browser.evaluate(f"{LAST}.querySelector('.failure button').click()")
    chat.browser.wait(f"{IDLE} && {TEXT}.includes('echo')")
    chat.ask("long")
    check("99 tokens" in chat.browser.evaluate(f"{LAST}.innerText"), "the server's words are shown")
    chat.ask("broken")
    check("broke off" in chat.browser.evaluate(f"{LAST}.innerText"), "a lost connection is told")


def asks_for_the_key(chat, server):
    chat.new()
    server.wants_key = True
    chat.send("with a key")
    chat.browser.wait("document.getElementById('key-dialog').open")
    chat.browser.evaluate(f"document.getElementById('key').value = '{KEY}'")
    chat.browser.click("#key-dialog .main-action")
    chat.browser.wait(f"{IDLE} && {TEXT}.includes('with a key')")
    check(KEY in chat.browser.evaluate("JSON.stringify(sessionStorage)"), "the key is kept for the tab")
    check(KEY not in chat.browser.evaluate("JSON.stringify(localStorage)"), "and nowhere else")
    server.wants_key = False


def settings_are_sent_and_kept(chat, server):
    chat.browser.click("#open-settings")
    for name, value in {"system": "Be brief.", "temperature": "0.3", "max_tokens": "50", "seed": "7"}.items():
        chat.browser.evaluate(f"document.getElementById('{name}').value = '{value}'")
    chat.browser.evaluate("document.getElementById('settings').dispatchEvent(new Event('input'))")
    chat.browser.click("#settings .main-action")
    chat.browser.wait("!document.getElementById('settings').open")
    chat.ask("with settings")
    request = server.requests[-1]
    same(request["messages"][0], {"role": "system", "content": "Be brief."}, "system prompt")
    same([request["temperature"], request["max_tokens"], request["seed"]], [0.3, 50, 7], "settings")
    check("top_p" not in request, "what is empty is not sent")
    n = chat.count(".message")
    chat.browser.open(server.url)
    chat.browser.wait(f"document.querySelectorAll('.message').length === {n}")
    chat.ask("after a reload")
    same(server.requests[-1]["temperature"], 0.3, "temperature after a reload")


def new_conversation_can_be_undone(chat, server):
    n = chat.count(".message")
    chat.new()
    chat.browser.click("#toast-undo")
    same(chat.count(".message"), n, "messages after undo")


def languages_and_themes(chat, server):
    same(chat.browser.evaluate("document.documentElement.lang"), "en", "language")
    chat.browser.click("#language")
    same(chat.browser.evaluate("document.documentElement.lang"), "zh-CN", "language")
    same(chat.browser.evaluate("document.getElementById('input').placeholder"), "输入消息", "words")
    missing = chat.browser.evaluate(
        "Object.keys(words.en).filter(k => !(k in words.zh)).concat("
        "Object.keys(words.zh).filter(k => !(k in words.en)))")
    same(missing, [], "words of one language only")
    chat.browser.click("#language")
    theme = "document.documentElement.dataset.theme"
    before = chat.browser.evaluate(theme)
    chat.browser.click("#theme")
    check(chat.browser.evaluate(theme) != before, "the theme changes")
    chat.browser.click("#theme")


def fits_a_phone(chat, server):
    chat.browser.set_width(360, 740)
    same(chat.browser.evaluate("document.documentElement.scrollWidth"), 360, "width of the page")
    same(chat.browser.evaluate(
        "[...document.querySelectorAll('button, input, textarea, select')].filter(e => "
        "!e.labels?.length && !e.getAttribute('aria-label') && !e.innerText.trim() && "
        "e.offsetParent).map(e => e.outerHTML)"), [], "controls without a name")
    chat.browser.set_width(1100)


def no_errors_on_the_console(chat, server):
    # The browser reports answers with an error status as such; anything else is the page's fault.
    expected = "the server responded with a status of"
    same([line for line in chat.browser.console if expected not in line], [], "console")


FAKE_TESTS = [streams_and_sends_history, shift_enter_and_input_methods_do_not_send,
              markdown_is_shown_and_harmless, stops, regenerates_and_edits, thinking_is_folded,
              errors_are_explained_and_retried, asks_for_the_key, settings_are_sent_and_kept,
              new_conversation_can_be_undone, languages_and_themes, fits_a_phone,
              no_errors_on_the_console]

# -- with any server --------------------------------------------------------------------------------


def answers(chat, server):
    check(chat.ask("Say something."), "there is an answer")
    same(chat.count(".failure"), 0, "failures")


def stops_a_long_answer(chat, server):
    chat.send("Write as much as you can.")
    chat.browser.wait(f"{IDLE} || {TEXT}.trim()", chat.timeout_s)
    chat.browser.evaluate("document.getElementById('stop').click()")
    chat.browser.wait(IDLE)
    same(chat.count(".failure"), 0, "failures")


def regenerates(chat, server):
    n = chat.count(".message")
    chat.browser.evaluate(f"{LAST}.querySelector('.again').click()")
    chat.wait_answer()
    same(chat.count(".message"), n, "messages")


URL_TESTS = [answers, stops_a_long_answer, regenerates, no_errors_on_the_console]


def take_pictures(chat, server, directory):
    directory.mkdir(parents=True, exist_ok=True)
    for theme, width, height in (("light", 1100, 900), ("dark", 1100, 900), ("light", 390, 800)):
        chat.browser.set_width(width, height)
        chat.browser.call("Emulation.setEmulatedMedia",
                          features=[{"name": "prefers-color-scheme", "value": theme}])
        chat.browser.evaluate("localStorage.clear()")
        chat.browser.open(server.url)
        chat.browser.screenshot(directory / f"welcome-{theme}-{width}.png")
        chat.ask("think")
        chat.ask("markdown")
        chat.browser.screenshot(directory / f"answer-{theme}-{width}.png")
        chat.browser.evaluate("document.getElementById('scroll').scrollTop = 0")
        chat.browser.screenshot(directory / f"top-{theme}-{width}.png")
        chat.ask("long")
        chat.browser.screenshot(directory / f"error-{theme}-{width}.png")
        chat.browser.click("#open-settings")
        chat.browser.screenshot(directory / f"settings-{theme}-{width}.png")
        chat.browser.click("#settings .main-action")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", nargs="?", type=pathlib.Path)
    parser.add_argument("--url")
    parser.add_argument("--screenshots", type=pathlib.Path)
    arguments = parser.parse_args()
    if bool(arguments.page) == bool(arguments.url):
        parser.error("give a page or --url")
    program = find_chromium()
    if not program:
        print("skipped: no chromium on this machine")
        return SKIPPED
    server = None if arguments.url else FakeServer(arguments.page.read_text())
    tests = URL_TESTS if arguments.url else FAKE_TESTS
    failed = 0
    with Browser(program) as browser:
        chat = Chat(browser, timeout_s=120 if arguments.url else 30)
        browser.set_width(1100)
        browser.open(arguments.url or server.url)
        for test in tests:
            begin = time.monotonic()
            try:
                test(chat, server)
                print(f"ok      {test.__name__} ({time.monotonic() - begin:.1f} s)", flush=True)
            except (AssertionError, TimeoutError, RuntimeError) as error:
                failed += 1
                print(f"FAILED  {test.__name__}: {error}", flush=True)
        if arguments.screenshots and server:
            take_pictures(chat, server, arguments.screenshots)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
