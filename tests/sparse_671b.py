#!/usr/bin/env python3
"""Makes a directory laid out like the published DeepSeek-V3: 163 shards, 91,991 tensors, 688 GB in
sparse files that take a few megabytes of disk. With --run it opens the directory with `minke info`
and fails unless that takes less than 5 seconds and 1 GiB of resident memory.

    tests/sparse_671b.py /tmp/v3                                  make it
    tests/sparse_671b.py /tmp/v3 --run build/release/minke        make it, open it, report
    tests/sparse_671b.py --run build/release/minke                the same in a temporary directory
"""
import argparse
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time

SHARDS = 163
TENSORS = 91991
SIZES = {"F32": 4, "BF16": 2, "F8_E4M3": 1}

CONFIG = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "ep_size": 1,
    "first_k_dense_replace": 3,
    "hidden_act": "silu",
    "hidden_size": 7168,
    "initializer_range": 0.02,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "model_type": "deepseek_v3",
    "moe_intermediate_size": 2048,
    "moe_layer_freq": 1,
    "n_group": 8,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "quantization_config": {
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "quant_method": "fp8",
        "weight_block_size": [128, 128],
    },
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 40,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096,
        "type": "yarn",
    },
    "rope_theta": 10000,
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "tie_word_embeddings": False,
    "topk_group": 4,
    "topk_method": "noaux_tc",
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "v_head_dim": 128,
    "vocab_size": 129280,
}


def tensors(c):
    """Yields (name, dtype, shape) in the order of the layers."""
    hidden, vocab, latent = c["hidden_size"], c["vocab_size"], c["kv_lora_rank"]
    heads, query = c["num_attention_heads"], c["q_lora_rank"]
    nope, rope, value = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]

    def linear(name, n, k):
        yield name + ".weight", "F8_E4M3", [n, k]
        yield name + ".weight_scale_inv", "F32", [-(-n // 128), -(-k // 128)]

    def mlp(name, width):
        yield from linear(name + ".gate_proj", width, hidden)
        yield from linear(name + ".up_proj", width, hidden)
        yield from linear(name + ".down_proj", hidden, width)

    yield "model.embed_tokens.weight", "BF16", [vocab, hidden]
    for i in range(c["num_hidden_layers"] + c["num_nextn_predict_layers"]):
        layer = f"model.layers.{i}"
        if i >= c["num_hidden_layers"]:
            yield layer + ".embed_tokens.weight", "BF16", [vocab, hidden]
            yield layer + ".enorm.weight", "BF16", [hidden]
            yield layer + ".hnorm.weight", "BF16", [hidden]
            yield layer + ".eh_proj.weight", "BF16", [hidden, 2 * hidden]
        attention = layer + ".self_attn"
        yield from linear(attention + ".q_a_proj", query, hidden)
        yield attention + ".q_a_layernorm.weight", "BF16", [query]
        yield from linear(attention + ".q_b_proj", heads * (nope + rope), query)
        yield from linear(attention + ".kv_a_proj_with_mqa", latent + rope, hidden)
        yield attention + ".kv_a_layernorm.weight", "BF16", [latent]
        yield from linear(attention + ".kv_b_proj", heads * (nope + value), latent)
        yield from linear(attention + ".o_proj", hidden, heads * value)
        if i < c["first_k_dense_replace"]:
            yield from mlp(layer + ".mlp", c["intermediate_size"])
        else:
            yield layer + ".mlp.gate.weight", "BF16", [c["n_routed_experts"], hidden]
            yield layer + ".mlp.gate.e_score_correction_bias", "F32", [c["n_routed_experts"]]
            for e in range(c["n_routed_experts"]):
                yield from mlp(f"{layer}.mlp.experts.{e}", c["moe_intermediate_size"])
            yield from mlp(layer + ".mlp.shared_experts",
                           c["n_shared_experts"] * c["moe_intermediate_size"])
        yield layer + ".input_layernorm.weight", "BF16", [hidden]
        yield layer + ".post_attention_layernorm.weight", "BF16", [hidden]
        if i >= c["num_hidden_layers"]:
            yield layer + ".shared_head.norm.weight", "BF16", [hidden]
            yield layer + ".shared_head.head.weight", "BF16", [vocab, hidden]
    yield "model.norm.weight", "BF16", [hidden]
    yield "lm_head.weight", "BF16", [vocab, hidden]


def size(tensor):
    n = SIZES[tensor[1]]
    for extent in tensor[2]:
        n *= extent
    return n


def make(directory):
    everything = list(tensors(CONFIG))
    assert len(everything) == TENSORS, len(everything)
    total = sum(map(size, everything))
    shards = [[] for _ in range(SHARDS)]
    seen = 0
    for tensor in everything:
        shards[seen * SHARDS // total].append(tensor)
        seen += size(tensor)
    os.makedirs(directory, exist_ok=True)
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{SHARDS:06}.safetensors"
        header, at = {"__metadata__": {"format": "pt"}}, 0
        for tensor in sorted(shard, key=lambda t: (-SIZES[t[1]], t[0])):
            header[tensor[0]] = {"dtype": tensor[1], "shape": tensor[2],
                                 "data_offsets": [at, at + size(tensor)]}
            at += size(tensor)
            weight_map[tensor[0]] = name
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with open(os.path.join(directory, name), "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + at)
    with open(os.path.join(directory, "model.safetensors.index.json"), "w") as file:
        json.dump({"metadata": {"total_size": total}, "weight_map": weight_map}, file, indent=2)
    with open(os.path.join(directory, "config.json"), "w") as file:
        json.dump(CONFIG, file, indent=2)
    return total


def run(binary, directory):
    """Seconds and peak resident bytes of `minke info --model DIR`; the exit status must be 0."""
    start = time.monotonic()
    process = subprocess.Popen([binary, "info", "--model", directory])
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - start
    if status != 0:
        sys.exit(f"{binary} info --model {directory}: wait status {status}")
    return seconds, usage.ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", nargs="?")
    parser.add_argument("--run", metavar="MINKE")
    parser.add_argument("--seconds", type=float, default=5.0, help="most that opening may take")
    parser.add_argument("--mebibytes", type=float, default=1024.0, help="most that may be resident")
    args = parser.parse_args()
    if not args.directory and not args.run:
        parser.error("a directory or --run is needed")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    directory = args.directory or tempfile.mkdtemp(prefix="minke-671b-")
    try:
        try:
            total = make(directory)
        except OSError as error:
            # Some disks have no sparse files of this size; then there is nothing to measure.
            print(f"skipped: {directory}: {error.strerror}")
            return 77
        print(f"{directory}: {SHARDS} shards, {TENSORS} tensors, {total / 1e9:.1f} GB (sparse)")
        if not args.run:
            return 0
        seconds, resident = run(args.run, directory)
        print(f"opened in {seconds:.2f} s with {resident / 2**20:.0f} MiB resident")
        return int(seconds >= args.seconds or resident >= args.mebibytes * 2**20)
    finally:
        if not args.directory:
            shutil.rmtree(directory)


if __name__ == "__main__":
    sys.exit(main())
