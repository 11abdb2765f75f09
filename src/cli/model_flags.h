// What generate, chat and eval have in common: which model, how it computes, and how its tokens are
// chosen.
#pragma once
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "infer/engine.h"
#include "infer/generation_config.h"
#include "infer/model_ranks.h"
#include "model/checkpoint.h"
#include "text/tokenizer.h"

namespace minke {

struct ModelFlags {
  std::string model;
  std::string compute = "bf16";
  std::string cache_dtype = "auto";
  bool allow_symlinks = false;
  std::string layout;
  double rank_timeout = 600;

  template <class Visitor>
  void visit(Visitor& field) {
    field("model", model, "model directory: config.json, weights, tokenizer.json");
    field("compute", compute, "arithmetic of products with weights",
          one_of({"fp32", "bf16", "fp8"}));
    field(
        "cache-dtype", cache_dtype,
        "rows of the latent cache: bf16, fp8 (656 bytes a token and layer where bf16 takes 1152), "
        "fp32, or auto (bf16 with --compute bf16, else fp32)",
        one_of({"auto", "bf16", "fp8", "fp32"}));
    field("allow-symlinks", allow_symlinks, "weight files may be links out of the directory");
    field("layout", layout,
          "of several ranks: over how many the layers are spread x over how many the experts of "
          "each layer, as in 2x4 (default: experts over all)");
    field("rank-timeout", rank_timeout,
          "of several ranks: seconds that one may take for a stage or the experts of a layer, 0 "
          "for ever",
          at_least(0));
  }
};

struct LoadWishes {
  bool mtp = false;                      // MTP modules too, for drafts
  std::function<bool()> cancelled = {};  // asked while loading; then Interrupted is thrown
  ModelCaller* ranks = nullptr;          // of several ranks: they load their parts meanwhile
};
// Loads what these attention forms need. Says on stderr which instruction set, arithmetic and
// threads are used, and shows GB/s and time left while loading much.
Model load_for_use(const ModelFlags& flags, const AttentionForms& attention,
                   const LoadWishes& wishes = {});
// What a rank loads that holds a part for rank 0; none when it was called off. Says nothing.
std::optional<Model> load_held_part(const ModelFlags& flags, const ModelPart& part);

// Flags that override generation_config.json, which overrides the sampler's defaults.
struct SamplingFlags {
  std::optional<double> temperature, top_p, min_p, repetition_penalty, presence_penalty,
      frequency_penalty;
  std::optional<std::int64_t> top_k, seed;

  template <class Visitor>
  void visit(Visitor& field) {
    const std::string or_file = " (default: generation_config.json, else ";
    field("temperature", temperature, "0: always the most likely token" + or_file + "1)",
          between(0, 100));
    field("top-k", top_k, "keep the k most likely tokens, 0 all" + or_file + "0)", at_least(0));
    field("top-p", top_p,
          "keep the most likely tokens that together reach this probability" + or_file + "1)",
          between(0, 1));
    field("min-p", min_p,
          "keep tokens at least this likely, relative to the most likely one" + or_file + "0)",
          between(0, 1));
    field("repetition-penalty", repetition_penalty,
          "above 1 makes tokens less likely that occurred before" + or_file + "1)",
          between(1e-3, 1e3));
    field("presence-penalty", presence_penalty,
          "taken off the logits of tokens generated before (default: 0)", between(-2, 2));
    field("frequency-penalty", frequency_penalty,
          "taken off the logits for each time a token was generated (default: 0)", between(-2, 2));
    field("seed", seed, "of the draws; the same seed gives the same text (default: a new one)",
          at_least(0));
  }

  SamplerSettings over(const GenerationConfig& file) const;
};

// Whatever ends an answer: config.json's and generation_config.json's eos_token_id, else the
// tokenizer's end of sentence.
std::vector<std::int32_t> stop_ids_of(const ModelConfig& config, const GenerationConfig& file,
                                      const Tokenizer* tokenizer);

// The ids of a text prompt: begin-of-sentence where the tokenizer says add_bos_token, then the
// text.
std::vector<std::int32_t> encode_prompt(const Tokenizer& tokenizer, std::string_view text);

}  // namespace minke
