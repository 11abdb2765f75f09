#!/usr/bin/env python3
"""Loads a model directory in Hugging Face transformers and compares its logits with `minke forward`.

usage: transformers_check.py MINKE MODEL_DIR

Needs torch, transformers (>= 4.51) and safetensors; prints why and exits 77 where they are missing,
which ctest counts as skipped. FP32 on both sides; MTP modules are unknown to transformers and are
ignored there.
"""
import pathlib
import subprocess
import sys
import tempfile

try:
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import AutoConfig
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3ForCausalLM
except ImportError as error:
    print(f"skipped: {error}; pip install torch transformers safetensors")
    sys.exit(77)

minke, model_dir = sys.argv[1], pathlib.Path(sys.argv[2])
config = AutoConfig.from_pretrained(model_dir)
model = DeepseekV3ForCausalLM.from_pretrained(model_dir, dtype=torch.float32,
                                              attn_implementation="eager").eval()
generator = torch.Generator().manual_seed(1)
tokens = torch.randint(0, config.vocab_size, (2, 40), generator=generator)
with torch.no_grad():
    want = model(tokens).logits

with tempfile.TemporaryDirectory() as folder:
    batch, out = pathlib.Path(folder, "batch.safetensors"), pathlib.Path(folder, "out.safetensors")
    save_file({"tokens": tokens}, batch)
    for attention in ("absorbed", "expanded"):
        subprocess.run([minke, "forward", "--model", model_dir, "--tokens", batch, "--out", out,
                        "--compute", "fp32", "--attention", attention], check=True)
        got = load_file(out)["logits"]
        difference = (got - want).abs().max().item()
        size = want.abs().max().item()
        agree = (got.argmax(-1) == want.argmax(-1)).float().mean().item()
        print(f"{attention}: largest difference {difference:.3g} of logits up to {size:.3g}, "
              f"same best token at {100 * agree:.1f} % of positions")
        if difference > 5e-5 * max(1.0, size):
            sys.exit(1)
