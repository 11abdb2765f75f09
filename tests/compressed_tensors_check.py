#!/usr/bin/env python3
"""Unpacks the 4-bit weights of a converted model with the compressed-tensors package and compares them,
bit for bit, with what `minke convert --dtype bf16` makes of the same model.

  compressed_tensors_check.py MINKE MODEL_DIR        (a model in BF16 or FP8)

Needs torch, safetensors and compressed-tensors; prints why and exits 77 where they are missing.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

try:
    import torch
    from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
    from compressed_tensors.quantization import QuantizationConfig
    from safetensors.torch import load_file
except ImportError as error:
    print(f"skipped: {error}; pip install torch safetensors compressed-tensors")
    sys.exit(77)


def tensors(directory):
    return {k: v for file in sorted(directory.glob("model*.safetensors")) for k, v in load_file(file).items()}


minke, model = sys.argv[1:]
good = True
with tempfile.TemporaryDirectory() as folder:
    for group in (32, 128):
        packed, values = pathlib.Path(folder, f"int4-{group}"), pathlib.Path(folder, f"bf16-{group}")
        subprocess.run([minke, "convert", "--model", model, "--out", packed, "--dtype", "int4", "--group", str(group)],
                       check=True, stderr=subprocess.DEVNULL)
        subprocess.run([minke, "convert", "--model", packed, "--out", values, "--dtype", "bf16"], check=True,
                       stderr=subprocess.DEVNULL)
        settings = json.loads((packed / "config.json").read_text())["quantization_config"]
        QuantizationConfig.model_validate(settings)  # raises where it does not know a setting
        codes, wanted, differ, n = tensors(packed), tensors(values), 0, 0
        for name in sorted(codes):
            if not name.endswith(".weight_packed"):
                continue
            weight = name.removesuffix("_packed")
            rows, columns = codes[weight + "_shape"].tolist()
            q = unpack_from_int32(codes[name], 4, torch.Size((rows, columns)))
            scale = codes[weight + "_scale"].float().repeat_interleave(group, 1)[:, :columns]
            differ += not torch.equal((q.float() * scale).bfloat16(), wanted[weight])
            n += 1
        print(f"groups of {group}: {n} matrices, {differ} differ")
        good &= n > 0 and differ == 0
sys.exit(0 if good else 1)
