// Generation: prompt tokens through the model, then one token after another.
//
// step() is the one place where tokens meet the model; it takes any number of sequences, each with
// its next tokens, and a sequence's logits do not depend on the others. generate() is its user for
// one sequence.
//
// Prompt tokens go through one attention form and generated ones through another, whatever the
// chunking: rows of the two forms differ in their last bits, and so the result of a prompt and a
// seed would otherwise depend on how the work was cut.
#pragma once
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "infer/sampler.h"
#include "model/cached_forward.h"

namespace minke {

struct AttentionForms {
  AttentionForm prompt = AttentionForm::Expanded;
  AttentionForm generated = AttentionForm::Absorbed;
};
// "auto" (the above), "absorbed" or "expanded" (both). ConfigError for another name.
AttentionForms parse_attention_forms(std::string_view name);

// The next tokens of one sequence; at least one.
struct StepInput {
  LatentCache* cache;
  std::span<const std::int32_t> tokens;
  AttentionForm form;
  bool wants_logits = true;  // after its last token
};
// Makes room in the caches and runs all inputs together -> logits [n, V], a row for each input that
// wants them, in order; an empty tensor when none does. Ids must be in the vocabulary.
Tensor step(const Model& model, std::span<const StepInput> inputs);

// A sequence that is kept: a latent cache and the ids whose rows it holds.
class Sequence {
 public:
  explicit Sequence(const Model& model);
  const std::vector<std::int32_t>& cached_ids() const { return ids_; }
  const SequenceCache& cache() const { return cache_; }
  // Forgets what does not begin `prompt`, and so much that at least the prompt's last token is left
  // to be computed. Returns how many rows stay.
  Index rewind_to(std::span<const std::int32_t> prompt);
  // Up to n tokens take no memory but the cache's from now on.
  void expect(Index n) { ids_.reserve(static_cast<std::size_t>(n)); }
  // Runs the next tokens; logits [V] after the last, or an empty tensor.
  Tensor extend(const Model& model, std::span<const std::int32_t> tokens, AttentionForm form,
                bool wants_logits);

 private:
  SequenceCache cache_;
  std::vector<std::int32_t> ids_;
};

struct GenerationSettings {
  SamplerSettings sampler;
  Index max_tokens = 256;
  Index prefill_chunk = 2048;  // prompt tokens in one pass; 0: all
  AttentionForms attention = {};
  std::vector<std::int32_t> stop_ids = {};  // empty: only max_tokens and the context end it
};

// Stop: a stop id. Length: max_tokens or the context is full. Cancelled: a hook or a client said
// so. Error: the engine could not go on with it (batch engine only; the log says why).
enum class FinishReason : std::uint8_t { Stop, Length, Cancelled, Error };
// "stop", "length", "cancelled", "insufficient_system_resource"
std::string_view name_of(FinishReason reason);

struct GenerationHooks {
  // A new token, stop ids left out. False ends the generation.
  std::function<bool(std::int32_t)> on_token = {};
  // Prompt tokens done so far and in all, after each piece of the prompt but the last.
  std::function<void(Index, Index)> on_prefill = {};
  // Asked between pieces of the prompt and between tokens.
  std::function<bool()> cancelled = {};
};

struct GenerationResult {
  std::vector<std::int32_t> ids;  // new tokens, the stop id included
  FinishReason finish_reason = FinishReason::Length;
  Index prompt_tokens = 0;
  Index reused_tokens = 0;  // of the prompt: their rows were there already
  double prefill_s = 0;     // until the first new token is chosen
  double decode_s = 0;      // from there on
};

// Ids [0, vocabulary) only, at least one, and room for at least one more in the context
// (max_position_embeddings); else ConfigError. `where` is named in errors ("--prompt-ids").
void check_prompt(const ModelConfig& config, std::span<const std::int32_t> prompt,
                  std::string_view where);

// Continues `prompt`. Rows of `sequence` that begin the prompt are used again; afterwards it holds
// the prompt and all new tokens but the last. Throws what check_prompt and the sampler throw.
GenerationResult generate(const Model& model, Sequence& sequence,
                          std::span<const std::int32_t> prompt, const GenerationSettings& settings,
                          const GenerationHooks& hooks = {});

}  // namespace minke
