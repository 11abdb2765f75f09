#!/usr/bin/env python3
"""Writes a benchmark model with random weights as GGUF, for llama.cpp and ik_llama.cpp.

usage: llama_model.py NAME TYPE OUT.gguf [--for llama|ik]

NAME: mini, moonlight-9l or v3-slice (docs/benchmarks.md). TYPE: q8_0, q4_0 or q4_k; norms, the router and its
bias are FP32. With the 4-bit types the head is q6_k, and with q4_k rows that are not a multiple of 256 are q5_0,
as in the files that llama-quantize makes. Needs the packages gguf and numpy:
    python3 -m venv venv && venv/bin/pip install gguf && venv/bin/python tools/llama_model.py ...

The blocks are drawn as bytes: random codes, and one scale for a matrix that gives its values variance 1 / inputs,
so that activations keep their size and the gate spreads over all experts. One matrix, or one expert of it, is
held at a time.

--for says how attention is laid out: llama.cpp wants kv_b per head, split in two; ik_llama.cpp wants it whole.
ik_llama.cpp takes a model without q_lora only if it has as many layers as a published one. For moonlight-9l it
therefore gets q_lora of a rank with which q_a and q_b together have about the parameters of q (q8_0: 1 % less).
"""
import argparse
import math
import sys

try:
    import gguf
    import numpy as np
except ImportError as error:
    print(f"skipped: {error}; python3 -m venv venv && venv/bin/pip install gguf, then run this with venv/bin/python")
    sys.exit(77)

# hidden, layers, heads, q_lora, kv_lora, nope, rope, value, dense inner, expert inner, experts, chosen, shared,
# groups, groups kept, scaling factor, vocabulary, positions: as in src/model/benchmark_models.cpp
FIELDS = "D L H q c n r v dense inner experts top shared groups kept factor vocab positions".split()
MODELS = {
    "mini": (512, 8, 8, 256, 128, 64, 32, 64, 1408, 256, 32, 4, 1, 1, 1, 2.5, 8192, 4096),
    "moonlight-9l": (2048, 9, 16, 0, 512, 128, 64, 128, 11264, 1408, 64, 6, 2, 1, 1, 2.446, 32000, 8192),
    "v3-slice": (7168, 2, 128, 1536, 512, 128, 64, 128, 18432, 2048, 256, 8, 1, 8, 4, 2.5, 32000, 4096),
}
TYPES = gguf.GGMLQuantizationType


class Blocks:
    """Random blocks of one type; `layout` are the block's parts in order: "d" is the scale, "m" the scale of the
    offset, bytes stand for themselves, a number of bytes is random codes."""

    def __init__(self, kind, values, layout, variance, offset=0.0):
        self.kind, self.values, self.layout, self.offset = kind, values, layout, offset
        self.deviation = math.sqrt(variance)  # of the codes
        self.bytes = sum(2 if p in ("d", "m") else p if isinstance(p, int) else len(p) for p in layout)

    def draw(self, random, rows, columns):
        d = 1 / math.sqrt(columns) / self.deviation
        blocks = np.empty((rows * columns // self.values, self.bytes), np.uint8)
        at = 0
        for part in self.layout:
            if part in ("d", "m"):
                part = np.float16(d if part == "d" else d * self.offset).tobytes()
            if isinstance(part, int):
                codes = random.integers(0, 256, (len(blocks), part), np.uint8)
                if self.kind == TYPES.Q8_0:
                    codes[codes == 128] = 129  # -128 is not a code
                blocks[:, at:at + part] = codes
                at += part
            else:
                blocks[:, at:at + len(part)] = np.frombuffer(part, np.uint8)
                at += len(part)
        return blocks


def uniform(codes):
    return (codes * codes - 1) / 12


Q8_0 = Blocks(TYPES.Q8_0, 32, ["d", 32], uniform(255))
Q4_0 = Blocks(TYPES.Q4_0, 32, ["d", 16], uniform(16))
Q5_0 = Blocks(TYPES.Q5_0, 32, ["d", 4, 16], uniform(32))
Q4_K = Blocks(TYPES.Q4_K, 256, ["d", "m", bytes([1] * 8 + [0x11] * 4), 128], uniform(16), 7.5)  # all scales 1
Q6_K = Blocks(TYPES.Q6_K, 256, [128, 64, bytes([1] * 16), "d"], uniform(64))


class Writer:
    def __init__(self, path, kind):
        self.gguf, self.kind, self.random = gguf.GGUFWriter(path, "deepseek2"), kind, np.random.default_rng(1)
        self.makers = []

    def floats(self, name, shape, value):
        """value: of all, or "normal" with variance 1 / inputs"""
        def make():
            if value == "normal":
                return (self.random.standard_normal(shape) / math.sqrt(shape[-1])).astype(np.float32)
            return np.full(shape, value, np.float32)
        self.gguf.add_tensor_info(name, shape, np.dtype(np.float32), 4 * math.prod(shape))
        self.makers.append((1, make))

    def matrix(self, name, *shape, blocks=None):
        """[outputs, inputs], or as many of them as there are experts or heads"""
        blocks = blocks or self.kind
        if shape[-1] % blocks.values:
            blocks = Q5_0
        *outer, rows, columns = shape
        size = math.prod(shape) // blocks.values * blocks.bytes
        bytes_shape = [*outer, rows, columns // blocks.values * blocks.bytes]
        self.gguf.add_tensor_info(name, bytes_shape, np.dtype(np.uint8), size, raw_dtype=blocks.kind)
        self.makers.append((math.prod(outer), lambda: blocks.draw(self.random, rows, columns)))

    def finish(self):
        self.gguf.write_header_to_file()
        self.gguf.write_kv_data_to_file()
        self.gguf.write_ti_data_to_file()
        out = self.gguf.fout[0]
        for times, make in self.makers:
            self.gguf.write_padding(out, out.tell())
            for _ in range(times):
                make().tofile(out)
            self.gguf.write_padding(out, out.tell())
        self.gguf.close()


def describe(w, m, name, whole_kv_b):
    g = w.gguf
    g.add_name(f"minke benchmark model {name}")
    g.add_vocab_size(m.vocab)
    g.add_tokenizer_model("none")
    g.add_context_length(m.positions)
    g.add_embedding_length(m.D)
    g.add_block_count(m.L)
    g.add_feed_forward_length(m.dense)
    g.add_head_count(m.H)
    g.add_layer_norm_rms_eps(1e-6)
    g.add_rope_freq_base(10000.0)
    g.add_rope_dimension_count(m.r)
    g.add_q_lora_rank(m.q)
    g.add_kv_lora_rank(m.c)
    if whole_kv_b:
        g.add_head_count_kv(m.H)
        g.add_key_length(m.n + m.r)
        g.add_value_length(m.v)
    else:
        g.add_head_count_kv(1)
        g.add_key_length(m.c + m.r)
        g.add_value_length(m.c)
        g.add_key_length_mla(m.n + m.r)
        g.add_value_length_mla(m.v)
    g.add_leading_dense_block_count(1)
    g.add_expert_feed_forward_length(m.inner)
    g.add_expert_count(m.experts)
    g.add_expert_used_count(m.top)
    g.add_expert_shared_count(m.shared)
    g.add_expert_group_count(m.groups)
    g.add_expert_group_used_count(m.kept)
    g.add_expert_weights_scale(m.factor)
    g.add_expert_weights_norm(True)
    g.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)


def tensors(w, m, whole_kv_b):
    w.matrix("token_embd.weight", m.vocab, m.D)
    w.floats("output_norm.weight", [m.D], 1)
    w.matrix("output.weight", m.vocab, m.D, blocks=Q8_0 if w.kind is Q8_0 else Q6_K)
    for i in range(m.L):
        b = f"blk.{i}."
        w.floats(b + "attn_norm.weight", [m.D], 1)
        if m.q:
            w.matrix(b + "attn_q_a.weight", m.q, m.D)
            w.floats(b + "attn_q_a_norm.weight", [m.q], 1)
            w.matrix(b + "attn_q_b.weight", m.H * (m.n + m.r), m.q)
        else:
            w.matrix(b + "attn_q.weight", m.H * (m.n + m.r), m.D)
        w.matrix(b + "attn_kv_a_mqa.weight", m.c + m.r, m.D)
        w.floats(b + "attn_kv_a_norm.weight", [m.c], 1)
        if whole_kv_b:
            w.matrix(b + "attn_kv_b.weight", m.H * (m.n + m.v), m.c)
        else:
            w.matrix(b + "attn_k_b.weight", m.H, m.c, m.n)
            w.matrix(b + "attn_v_b.weight", m.H, m.v, m.c)
        w.matrix(b + "attn_output.weight", m.D, m.H * m.v)
        w.floats(b + "ffn_norm.weight", [m.D], 1)
        if i == 0:
            inner, kinds = [m.dense], [""]
        else:
            w.floats(b + "ffn_gate_inp.weight", [m.experts, m.D], "normal")
            w.floats(b + "exp_probs_b.bias", [m.experts], 0)
            inner, kinds = [m.inner, m.shared * m.inner], ["_exps", "_shexp"]
        for size, kind in zip(inner, kinds):
            outer = [m.experts] if kind == "_exps" else []
            w.matrix(f"{b}ffn_gate{kind}.weight", *outer, size, m.D)
            w.matrix(f"{b}ffn_up{kind}.weight", *outer, size, m.D)
            w.matrix(f"{b}ffn_down{kind}.weight", *outer, m.D, size)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("name", choices=MODELS)
    parser.add_argument("type", choices=["q8_0", "q4_0", "q4_k"])
    parser.add_argument("out")
    parser.add_argument("--for", dest="reader", choices=["llama", "ik"], default="llama")
    args = parser.parse_args()
    m = argparse.Namespace(**dict(zip(FIELDS, MODELS[args.name])))
    whole_kv_b = args.reader == "ik"
    step = 256 if args.type == "q4_k" else 32
    if args.reader == "ik" and not m.q:
        q = m.H * (m.n + m.r)
        m.q = round(m.D * q / (m.D + q) / step) * step
    w = Writer(args.out, {"q8_0": Q8_0, "q4_0": Q4_0, "q4_k": Q4_K}[args.type])
    describe(w, m, args.name, whole_kv_b)
    tensors(w, m, whole_kv_b)
    w.finish()


if __name__ == "__main__":
    main()
