#!/usr/bin/env python3
"""A running `minke serve` with the clients that people use: OpenAI for Python and for Node.

  serve_clients_check.py URL [--key KEY]      URL: http://127.0.0.1:8080

Installs them into a temporary directory; not part of ctest. Node is left out where there is no npm.
"""
import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PYTHON = r"""
import sys
import openai
url, key = sys.argv[1:]
ask = dict(model="deepseek-chat", messages=[{"role": "user", "content": "the sea"}], max_tokens=8,
           temperature=0)
for base in (url + "/v1", url):
    client = openai.OpenAI(base_url=base, api_key=key)
    assert any(m.id == "deepseek-chat" for m in client.models.list())
    whole = client.chat.completions.create(**ask)
    text = "".join(c.choices[0].delta.content or ""
                   for c in client.chat.completions.create(**ask, stream=True))
    assert text == whole.choices[0].message.content, (text, whole)
    assert client.completions.create(model="deepseek-chat", prompt="the", max_tokens=2).choices
    try:
        client.chat.completions.create(**dict(ask, model="unknown"))
    except openai.NotFoundError as e:
        assert e.code == "model_not_found"
    else:
        raise AssertionError("an unknown model was served")
print("openai for Python", openai.__version__, "ok")
"""

NODE = r"""
import OpenAI from "openai";
const [url, key] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url + "/v1", apiKey: key });
const ask = { model: "deepseek-chat", max_tokens: 8, temperature: 0,
              messages: [{ role: "user", content: "the sea" }] };
const whole = await client.chat.completions.create(ask);
let text = "";
for await (const chunk of await client.chat.completions.create({ ...ask, stream: true }))
  text += chunk.choices[0].delta.content ?? "";
if (text !== whole.choices[0].message.content) throw new Error(text);
console.log("openai for Node ok");
"""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--key", default="none")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="minke_clients_") as name:
        place = Path(name)
        subprocess.run([sys.executable, "-m", "venv", place / "venv"], check=True)
        python = place / "venv" / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "-q", "openai"], check=True)
        subprocess.run([python, "-c", PYTHON, args.url, args.key], check=True)
        if not shutil.which("npm"):
            print("openai for Node: left out, there is no npm")
            return
        (place / "check.mjs").write_text(NODE)
        subprocess.run(["npm", "install", "--silent", "openai"], cwd=place, check=True)
        subprocess.run(["node", "check.mjs", args.url, args.key], cwd=place, check=True)


if __name__ == "__main__":
    main()
