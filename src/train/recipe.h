// All settings of a training run, listed once: `minke train` reads them from a JSON file and from
// --set NAME=VALUE, prints them, and records them in every checkpoint.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/options.h"
#include "model/weights.h"
#include "train/batch_schedule.h"
#include "train/lr_schedule.h"
#include "train/optimizer.h"
#include "train/token_switch.h"

namespace minke {

class Tokenizer;

// The model to make, by the published keys. The defaults are a small model with every mechanism.
struct ModelRecipe {
  Index vocab_size = 0;
  Index hidden_size = 256, intermediate_size = 704, moe_intermediate_size = 128;
  Index num_hidden_layers = 6, num_nextn_predict_layers = 1;
  Index num_attention_heads = 4;
  std::optional<Index> q_lora_rank = 128;
  Index kv_lora_rank = 64, qk_nope_head_dim = 32, qk_rope_head_dim = 16, v_head_dim = 32;
  Index n_routed_experts = 16, n_shared_experts = 1, num_experts_per_tok = 4;
  Index n_group = 1, topk_group = 1, first_k_dense_replace = 1;
  bool norm_topk_prob = true;
  double routed_scaling_factor = 2.5;
  double rms_norm_eps = 1e-6, rope_theta = 10000, initializer_range = 0.02;
  Index max_position_embeddings = 4096;

  template <class Visitor>
  void visit(Visitor& field) {
    field("vocab_size", vocab_size, "entries of the embedding; 0: as the tokenizer has",
          at_least(0));
    field("hidden_size", hidden_size, "width of the residual stream", at_least(1));
    field("intermediate_size", intermediate_size, "inner width of dense layers", at_least(1));
    field("moe_intermediate_size", moe_intermediate_size, "inner width of an expert", at_least(1));
    field("num_hidden_layers", num_hidden_layers, "layers of the main model", at_least(1));
    field("num_nextn_predict_layers", num_nextn_predict_layers, "MTP modules", at_least(0));
    field("num_attention_heads", num_attention_heads, "heads", at_least(1));
    field("q_lora_rank", q_lora_rank, "latent size of queries; null: not compressed", at_least(1));
    field("kv_lora_rank", kv_lora_rank, "latent size of keys and values", at_least(1));
    field("qk_nope_head_dim", qk_nope_head_dim, "head size without position", at_least(1));
    field("qk_rope_head_dim", qk_rope_head_dim, "head size with position, even", at_least(2));
    field("v_head_dim", v_head_dim, "value size of a head", at_least(1));
    field("n_routed_experts", n_routed_experts, "routed experts of an MoE layer", at_least(0));
    field("n_shared_experts", n_shared_experts, "experts that every token visits", at_least(0));
    field("num_experts_per_tok", num_experts_per_tok, "routed experts of a token", at_least(0));
    field("n_group", n_group, "groups of routed experts", at_least(1));
    field("topk_group", topk_group, "groups that a token may use", at_least(1));
    field("first_k_dense_replace", first_k_dense_replace, "dense layers at the beginning",
          at_least(0));
    field("norm_topk_prob", norm_topk_prob, "gate weights of a token sum to one, times the factor");
    field("routed_scaling_factor", routed_scaling_factor, "factor of the gate weights", above(0));
    field("rms_norm_eps", rms_norm_eps, "epsilon of the norms", above(0));
    field("rope_theta", rope_theta, "base of the rotary frequencies", above(1));
    field("initializer_range", initializer_range, "standard deviation of a new model's matrices",
          above(0));
    field("max_position_embeddings", max_position_embeddings, "longest context, as recorded",
          at_least(1));
  }
};

struct DataRecipe {
  std::vector<std::string> paths;
  std::string tokenizer;
  double held_out_fraction = 0.005;
  Index sequence_length = 256, batch_size = 16, micro_batch = 0;
  Index held_out_rows = 64;
  std::vector<std::string> mixture;
  double fim_rate = 0, split_rate = 0;
  bool mask_documents = false;

  template <class Visitor>
  void visit(Visitor& field) {
    field("paths", paths,
          "text to train on: .txt and .jsonl files or folders of them, or what minke data made");
    field("tokenizer", tokenizer, "directory with tokenizer.json");
    field("held_out_fraction", held_out_fraction, "part of each source kept for the held-out loss",
          between(0, 0.5));
    field("sequence_length", sequence_length, "positions of a row", at_least(2));
    field("batch_size", batch_size, "rows of a step", at_least(1));
    field("micro_batch", micro_batch, "rows in memory at a time; 0: the whole batch", at_least(0));
    field("held_out_rows", held_out_rows, "most rows that a held-out loss looks at", at_least(1));
    field("mixture", mixture, "SOURCE=WEIGHT of every source: shares of the tokens; none: by size");
    field("fim_rate", fim_rate, "part of the documents that fill in the middle", between(0, 1));
    field("split_rate", split_rate,
          "part of the tokens that join punctuation with line breaks that are split",
          between(0, 1));
    field("mask_documents", mask_documents,
          "attention does not look across the documents of a row (the report's pre-training: it "
          "does)");
  }
};

struct OptimizerRecipe {
  double lr = 2e-3, min_lr = 2e-4;
  Index warmup_steps = 20;
  std::string schedule = "cosine";
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, weight_decay = 0.1, clip = 1;
  std::string moments = "bf16";
  std::vector<LrSegment> lr_segments;
  std::vector<std::string> no_decay = default_no_decay();

  template <class Visitor>
  void visit(Visitor& field) {
    const OptionLimits beta = between(0, 1 - 0x1p-53);
    field("lr", lr, "learning rate after the warm-up", above(0));
    field("min_lr", min_lr, "learning rate at the end of the cosine", at_least(0));
    field("warmup_steps", warmup_steps, "steps of the linear warm-up", at_least(0));
    field("schedule", schedule, "after the warm-up", one_of({"cosine", "constant"}));
    field("beta1", beta1, "decay of the first moment", beta);
    field("beta2", beta2, "decay of the second moment", beta);
    field("eps", eps, "added to the root of the second moment", above(0));
    field("weight_decay", weight_decay, "decoupled decay of matrices", at_least(0));
    field("clip", clip, "largest norm of all gradients; 0: any", at_least(0));
    field("moments", moments, "element type of both moments", one_of({"bf16", "fp32"}));
    field("lr_segments", lr_segments,
          "learning rate by tokens, instead of lr, min_lr and schedule: [{\"until\": TOKENS, "
          "\"lr\": rate at the end, \"shape\": constant, linear or cosine, \"from\": rate at the "
          "beginning}, ...]");
    field("no_decay", no_decay, "tensors without weight decay, as patterns of their names");
  }
};

struct LossRecipe {
  double alpha = 1e-4, gamma = 1e-3, mtp_lambda = 0.3;
  std::string balance = "bias";
  std::vector<TokenSwitch> gamma_switches, mtp_lambda_switches;

  template <class Visitor>
  void visit(Visitor& field) {
    field(
        "balance", balance,
        "of expert loads: bias (router biases by gamma and the sequence-wise loss), sequence (that "
        "loss alone), batch (the loss over whole micro-batches alone), none",
        one_of({"bias", "sequence", "batch", "none"}));
    field("alpha", alpha, "factor of the balance loss", at_least(0));
    field("gamma", gamma, "step of the router's biases, with balance bias", at_least(0));
    field("gamma_switches", gamma_switches,
          "gamma from a token count on: [{\"at\": TOKENS, \"value\": GAMMA}, ...]");
    field("mtp_lambda", mtp_lambda, "factor of the multi-token prediction loss", at_least(0));
    field("mtp_lambda_switches", mtp_lambda_switches, "mtp_lambda from a token count on, likewise");
  }
};

struct EmaRecipe {
  double decay = 0;
  std::string dtype = "fp32";

  template <class Visitor>
  void visit(Visitor& field) {
    field("decay", decay, "of the weights' moving average, a step; 0: none is kept",
          between(0, 1 - 0x1p-53));
    field("dtype", dtype, "element type of the average", one_of({"bf16", "fp32"}));
  }
};

// Steps whose loss or gradient is not to be trusted (train/guard.h).
struct GuardRecipe {
  std::string not_finite = "stop", spike = "warn";
  double spike_deviations = 8, spike_gradient = 20;
  Index window = 64, max_skips = 10;

  template <class Visitor>
  void visit(Visitor& field) {
    field("not_finite", not_finite, "a step with a loss or gradient that is not finite",
          one_of({"stop", "skip"}));
    field("spike", spike, "a step with a loss or gradient far above the ones before",
          one_of({"stop", "skip", "warn", "ignore"}));
    field("spike_deviations", spike_deviations,
          "far: the main loss above its running mean by so many standard deviations; 0: any loss",
          at_least(0));
    field("spike_gradient", spike_gradient,
          "far: the gradient's norm above so many times its running median; 0: any norm",
          at_least(0));
    field("window", window, "steps of the running mean and median", between(2, 1 << 16));
    field("max_skips", max_skips, "steps skipped in a row before the run stops", at_least(1));
  }
};

struct ExportRecipe {
  std::string dtype = "bf16";
  bool ema = false;

  template <class Visitor>
  void visit(Visitor& field) {
    field("dtype", dtype, "of the finished model's linears; fp8: as published, with scales",
          one_of({"bf16", "fp8"}));
    field("ema", ema, "write the moving average of the weights as well, to OUT.ema");
  }
};

struct CheckpointRecipe {
  Index every = 0;
  double minutes = 5;
  Index keep = 2;

  template <class Visitor>
  void visit(Visitor& field) {
    field("every", every, "steps between checkpoints; 0: by time alone", at_least(0));
    field("minutes", minutes, "minutes between checkpoints; 0: by steps alone", at_least(0));
    field("keep", keep, "checkpoints that are kept", at_least(1));
  }
};

// How products are computed with compute fp8 (the report, 3.3).
struct Fp8Recipe {
  std::string scales = "power_of_two";
  bool statistics = true;

  template <class Visitor>
  void visit(Visitor& field) {
    field("scales", scales,
          "of tiles and blocks: powers of two, the fastest, or FP32 as the report",
          one_of({"power_of_two", "float"}));
    field("statistics", statistics, "count clipped values and those that become zero, by layer");
  }
};

// What the backward pass computes again (the report, 3.2.3): less memory, the same results.
struct RecomputeRecipe {
  bool rmsnorm = false, mla_up = false, swiglu = true;

  template <class Visitor>
  void visit(Visitor& field) {
    field("rmsnorm", rmsnorm, "outputs of norms");
    field("mla_up", mla_up, "queries, keys and values from their latents");
    field("swiglu", swiglu, "the output of SwiGLU; always so with compute fp8");
  }
};

// Ranks that train together (train/training_layout.h, train/ranked_step.h).
struct ParallelRecipe {
  Index pipeline = 1, experts = 1;
  std::string schedule = "dualpipe";
  // Rounds nothing: then no layout changes what is learnt. The report's forms are smaller.
  std::string dispatch = "full";
  std::string reduction = "fast";
  double timeout_seconds = 600;

  template <class Visitor>
  void visit(Visitor& field) {
    field("pipeline", pipeline, "ranks of a pipeline, each with one or two stages of the model",
          between(1, 16384));
    field("experts", experts,
          "ranks that share the routed experts of a stage; data ranks are the ranks over pipeline "
          "times experts",
          between(1, 16384));
    field("schedule", schedule, "what the ranks of a pipeline do when; one rank: 1f1b",
          one_of({"1f1b", "zb1p", "dualpipe", "dualpipev"}));
    field("dispatch", dispatch,
          "rows on their way to experts of other ranks, and back: full (FP32), bf16, or fp8 there "
          "and BF16 back",
          one_of({"full", "bf16", "fp8"}));
    field("reduction", reduction,
          "sum of the micro-batches' gradients: fast, or fixed (one order, so the same bits on any "
          "number of ranks; takes a gradient in memory for each micro-batch of a rank)",
          one_of({"fast", "fixed"}));
    field("timeout_seconds", timeout_seconds,
          "longest wait for another rank before the job ends; more than a checkpoint or a held-out "
          "loss takes; 0: for ever",
          between(0, 1e9));
  }
};

struct Recipe {
  std::string out;
  std::string init_from;
  Index steps = 0, tokens = 0;
  std::uint64_t seed = 1;
  std::string compute = "bf16";
  Index eval_every = 100, record_loads_every = 0;
  ModelRecipe model;
  DataRecipe data;
  BatchRampRecipe batch_ramp;
  OptimizerRecipe optimizer;
  LossRecipe loss;
  EmaRecipe ema;
  GuardRecipe guard;
  CheckpointRecipe checkpoint;
  bool tensorboard = true;
  Fp8Recipe fp8;
  RecomputeRecipe recompute;
  ExportRecipe exported;
  ParallelRecipe parallel;

  template <class Visitor>
  void visit(Visitor& field) {
    field("out", out, "directory of the finished model; the run's files are in OUT.run");
    field("init_from", init_from, "model directory to start from, which then gives model.*");
    field("steps", steps, "steps of the whole run", at_least(0));
    field("tokens", tokens, "or its tokens, rounded up to whole steps", at_least(0));
    field("seed", seed, "of the new weights and of the order of documents");
    field("compute", compute, "arithmetic of products", one_of({"bf16", "fp8", "fp32"}));
    field("eval_every", eval_every, "steps between held-out losses; 0: at the end alone",
          at_least(0));
    field("record_loads_every", record_loads_every,
          "steps between records of every expert's load in metrics.jsonl; 0: none", at_least(0));
    field("model", model, "the model");
    field("data", data, "the text");
    field("batch_ramp", batch_ramp, "growth of the batch at the beginning");
    field("optimizer", optimizer, "AdamW and its schedule");
    field("loss", loss, "factors of the losses, and of the router's bias update");
    field("ema", ema, "moving average of the weights");
    field("guard", guard, "steps that are not to be trusted");
    field("checkpoint", checkpoint, "when to write checkpoints");
    field("tensorboard", tensorboard, "write event files for TensorBoard beside metrics.jsonl");
    field("fp8", fp8, "compute fp8");
    field("recompute", recompute, "what the backward pass computes again instead of keeping it");
    field("export", exported, "the finished model");
    field("parallel", parallel, "ranks that train together");
  }

  // From a file, then NAME=VALUE settings, then checked. ConfigError, FormatError or IoError naming
  // file and option. Paths in it are relative to the current directory.
  static Recipe load(const std::filesystem::path& path, const std::vector<std::string>& settings);

  // ConfigError naming what a run needs and a description of one does not: out, text, tokenizer.
  void check_runnable() const;

  Index tokens_per_step() const { return data.batch_size * data.sequence_length; }  // without ramp
  Index rows_at_a_time() const { return data.micro_batch > 0 ? data.micro_batch : data.batch_size; }
  Index tokens_at_a_time() const { return rows_at_a_time() * data.sequence_length; }
  OptimizerSettings optimizer_settings(double lr) const;
  ModelConfig new_model(const Tokenizer& tokenizer) const;
  TrainingForm training_form() const;
  // Without a tokenizer, whose ids are then unknown: model.vocab_size must be given.
  ModelConfig new_model() const;
  // ConfigError when rows are longer than the model's context or the tokenizer has more ids.
  void check_model(const ModelConfig& config, const Tokenizer& tokenizer) const;
};

// What differs between the recipe of a checkpoint and today's. Settings that the weights, moments
// or the data position depend on (model.*, data.* but paths, micro_batch and held_out_rows,
// batch_ramp.*, seed, init_from, optimizer.moments, ema.*) must not: ConfigError naming the first
// one. The others are returned, each as "optimizer.lr 0.001 instead of 0.002".
std::vector<std::string> recipe_changes(const nlohmann::ordered_json& recorded, Recipe& today);

}  // namespace minke
