#!/usr/bin/env python3
"""The benchmark model `mini` in plain PyTorch, to train against `minke bench train`.

usage: pytorch_mini.py [--minke PATH] [--rounds N]      Debian: apt install python3-torch libopenblas0-pthread

Sequence 512, batch 8, AdamW, random tokens. Rounds of PyTorch in FP32, PyTorch in BF16 autocast and
`minke bench train` take turns; printed are medians of tokens/s and of the ratios of each round.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

try:
    import torch
    import torch.nn.functional as F
    from torch import nn
except ImportError as error:
    print(f"skipped: {error}; install it with: apt install python3-torch")
    sys.exit(77)

D, LAYERS, HEADS, Q, C, N, R, V = 512, 8, 8, 256, 128, 64, 32, 64
DENSE, EXPERT, EXPERTS, TOP, VOCAB = 1408, 256, 32, 4, 8192
BATCH, LENGTH = 8, 512


class Norm(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x):
        return x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


def linear(n_in, n_out):
    return nn.Linear(n_in, n_out, bias=False)


def rotate(x, turn):  # x [B, H, T, R], interleaved pairs
    return torch.view_as_real(torch.view_as_complex(x.float().unflatten(-1, (-1, 2))) * turn).flatten(-2)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_a, self.q_norm, self.q_b = linear(D, Q), Norm(Q), linear(Q, HEADS * (N + R))
        self.kv_a, self.kv_norm, self.kv_b = linear(D, C + R), Norm(C), linear(C, HEADS * (N + V))
        self.o = linear(HEADS * V, D)

    def forward(self, x, turn, mask):
        b, t, _ = x.shape
        q = self.q_b(self.q_norm(self.q_a(x))).view(b, t, HEADS, N + R).transpose(1, 2)
        c, k_rope = self.kv_a(x).split([C, R], -1)
        kv = self.kv_b(self.kv_norm(c)).view(b, t, HEADS, N + V).transpose(1, 2)
        k_rope = rotate(k_rope.unsqueeze(1), turn).expand(b, HEADS, t, R).to(kv.dtype)
        q = torch.cat([q[..., :N], rotate(q[..., N:], turn).to(q.dtype)], -1)
        k = torch.cat([kv[..., :N], k_rope], -1)
        scores = q @ k.transpose(-1, -2) * (N + R) ** -0.5 + mask
        out = scores.float().softmax(-1).to(kv.dtype) @ kv[..., N:]
        return self.o(out.transpose(1, 2).reshape(b, t, HEADS * V))


class Ffn(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.gate, self.up, self.down = linear(D, inner), linear(D, inner), linear(inner, D)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Moe(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate = linear(D, EXPERTS)
        self.shared = Ffn(EXPERT)
        self.experts = nn.ModuleList(Ffn(EXPERT) for _ in range(EXPERTS))

    def forward(self, x):
        flat = x.reshape(-1, D)
        scores = self.gate(flat).float().sigmoid()
        chosen = scores.topk(TOP, -1).indices
        weight = scores.gather(1, chosen)
        weight = weight / weight.sum(-1, keepdim=True) * 2.5
        y = self.shared(flat)
        for e, expert in enumerate(self.experts):
            token, slot = torch.where(chosen == e)
            if len(token):
                out = expert(flat[token]) * weight[token, slot, None]
                y = y.index_add(0, token, out.to(y.dtype))
        return y.view_as(x)


class Block(nn.Module):
    def __init__(self, dense):
        super().__init__()
        self.norm1, self.attention = Norm(D), Attention()
        self.norm2, self.ffn = Norm(D), Ffn(DENSE) if dense else Moe()

    def forward(self, x, turn, mask):
        x = x + self.attention(self.norm1(x), turn, mask)
        return x + self.ffn(self.norm2(x))


class Mini(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, D)
        self.blocks = nn.ModuleList(Block(i == 0) for i in range(LAYERS))
        self.norm, self.head = Norm(D), linear(D, VOCAB)
        angle = torch.outer(torch.arange(LENGTH), 10000.0 ** (-torch.arange(0, R, 2) / R))
        self.turn = torch.polar(torch.ones_like(angle), angle)
        self.mask = torch.full((LENGTH, LENGTH), float("-inf")).triu(1)

    def forward(self, tokens):
        x = self.embedding(tokens[:, :-1])
        for block in self.blocks:
            x = block(x, self.turn, self.mask)
        logits = self.head(self.norm(x)).float()
        return F.cross_entropy(logits.view(-1, VOCAB), tokens[:, 1:].reshape(-1))


class Training:
    def __init__(self, bf16):
        torch.manual_seed(1)
        self.bf16, self.model = bf16, Mini()
        for p in self.model.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.02)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, betas=(0.9, 0.95),
                                           weight_decay=0.1)
        self.tokens = torch.randint(VOCAB, (BATCH, LENGTH + 1))

    def tokens_per_s(self):
        begin = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
            loss = self.model(self.tokens)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return BATCH * LENGTH / (time.perf_counter() - begin)


def minke_tokens_per_s(minke):
    done = subprocess.run([minke, "bench", "train", "--model", "mini", "--rounds", "5", "--json"],
                          check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(done.stdout)["results"][0]["tokens_per_s"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--minke", default="build/release/minke")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    forms = {"PyTorch FP32": Training(False).tokens_per_s, "PyTorch BF16": Training(True).tokens_per_s,
             "minke BF16": lambda: minke_tokens_per_s(options.minke)}
    for warm_up in list(forms.values())[:2]:
        warm_up()
    rounds = [{name: run() for name, run in forms.items()} for _ in range(options.rounds)]
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads; "
          f"mini, {BATCH} x {LENGTH} tokens a step, {options.rounds} rounds")
    for name in forms:
        speeds = [r[name] for r in rounds]
        ratios = [r["minke BF16"] / r[name] for r in rounds]
        print(f"{name:<14}{statistics.median(speeds):8.0f} tokens/s   minke is "
              f"{statistics.median(ratios):.2f} times as fast "
              f"({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
