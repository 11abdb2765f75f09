#include "infer/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "ops/permute.h"

namespace minke {
namespace {

class Stopwatch {
 public:
  double lap() {
    const auto now = std::chrono::steady_clock::now();
    const double seconds = std::chrono::duration<double>(now - last_).count();
    last_ = now;
    return seconds;
  }

 private:
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

std::span<const float> row(const Tensor& logits) {
  return {static_cast<const float*>(logits.raw()), static_cast<std::size_t>(logits.size())};
}

}  // namespace

AttentionForms parse_attention_forms(std::string_view name) {
  if (name == "auto") return {};
  if (name != "absorbed" && name != "expanded")
    throw ConfigError(
        fmt::format("attention is \"{}\"; expected auto, absorbed or expanded", name));
  const AttentionForm form = parse_attention_form(name);
  return {form, form};
}

std::string_view name_of(FinishReason reason) {
  switch (reason) {
    case FinishReason::Stop:
      return "stop";
    case FinishReason::Length:
      return "length";
    case FinishReason::Cancelled:
      return "cancelled";
    case FinishReason::Error:
      return "insufficient_system_resource";
  }
  return "";
}

Tensor step(const Model& model, std::span<const StepInput> inputs) {
  BlockVector<std::int32_t> tokens;
  BlockVector<Segment> segments;
  Index n_wanted = 0;
  for (const StepInput& input : inputs) {
    const Index n = static_cast<Index>(input.tokens.size());
    input.cache->reserve(input.cache->length(0) + n);
    tokens.insert(tokens.end(), input.tokens.begin(), input.tokens.end());
    segments.push_back({input.cache, n, input.form});
    n_wanted += input.wants_logits;
  }
  const Tensor h = cached_forward(model, tokens, segments);
  if (n_wanted == 0) return {};
  Tensor last = Tensor::uninitialized({n_wanted, model.config.hidden_size});
  Index end = 0, to = 0;
  for (const StepInput& input : inputs) {
    end += static_cast<Index>(input.tokens.size());
    if (input.wants_logits) copy(h.v2().rows(end - 1, 1), last.v2().rows(to++, 1));
  }
  return output_logits(model, last.v2());
}

Sequence::Sequence(const Model& model) : cache_(model) {}

Index Sequence::rewind_to(std::span<const std::int32_t> prompt) {
  const std::size_t most = prompt.empty() ? 0 : std::min(ids_.size(), prompt.size() - 1);
  const auto [differs, unused] =
      std::mismatch(ids_.begin(), ids_.begin() + static_cast<std::ptrdiff_t>(most), prompt.begin());
  ids_.erase(differs, ids_.end());
  const auto kept = static_cast<Index>(ids_.size());
  cache_.truncate(kept);
  return kept;
}

Tensor Sequence::extend(const Model& model, std::span<const std::int32_t> tokens,
                        AttentionForm form, bool wants_logits) {
  cache_.truncate(static_cast<Index>(ids_.size()));  // what an interrupted step may have left
  const StepInput input{&cache_, tokens, form, wants_logits};
  Tensor logits = step(model, {&input, 1});
  ids_.insert(ids_.end(), tokens.begin(), tokens.end());
  return logits;
}

void check_prompt(const ModelConfig& config, std::span<const std::int32_t> prompt,
                  std::string_view where) {
  if (prompt.empty()) throw ConfigError(fmt::format("{}: no tokens; give at least one", where));
  for (std::size_t i = 0; i < prompt.size(); ++i)
    if (prompt[i] < 0 || prompt[i] >= config.vocab_size)
      throw ConfigError(fmt::format("{}: token {} is {}; expected an id from 0 to {}", where, i,
                                    prompt[i], config.vocab_size - 1));
  if (static_cast<Index>(prompt.size()) >= config.max_position_embeddings)
    throw ConfigError(fmt::format(
        "{}: {} tokens do not fit: the model's context (max_position_embeddings) is {} tokens and "
        "must hold at least one more; shorten it",
        where, prompt.size(), config.max_position_embeddings));
}

GenerationResult generate(const Model& model, Sequence& sequence,
                          std::span<const std::int32_t> prompt, const GenerationSettings& settings,
                          const GenerationHooks& hooks) {
  check_prompt(model.config, prompt, "prompt");
  if (settings.max_tokens < 1 || settings.prefill_chunk < 0)
    throw ConfigError(fmt::format(
        "max_tokens is {} and prefill_chunk {}; expected at least 1 and at least 0 (all at once)",
        settings.max_tokens, settings.prefill_chunk));
  Sampler sampler(settings.sampler);
  const auto cancelled = [&] { return hooks.cancelled && hooks.cancelled(); };

  Stopwatch watch;
  GenerationResult result;
  const Index n = static_cast<Index>(prompt.size());
  result.prompt_tokens = n;
  result.reused_tokens = sequence.rewind_to(prompt);
  const Index chunk = settings.prefill_chunk > 0 ? settings.prefill_chunk : n;
  Tensor logits;
  for (Index done = result.reused_tokens; done < n;) {
    if (cancelled()) {
      result.finish_reason = FinishReason::Cancelled;
      result.prefill_s = watch.lap();
      return result;
    }
    const Index take = std::min(chunk, n - done);
    const bool last = done + take == n;
    logits = sequence.extend(
        model, prompt.subspan(static_cast<std::size_t>(done), static_cast<std::size_t>(take)),
        settings.attention.prompt, last);
    done += take;
    if (!last && hooks.on_prefill) hooks.on_prefill(done, n);
  }

  const Index most = std::min(settings.max_tokens, model.config.max_position_embeddings - n);
  result.ids.reserve(static_cast<std::size_t>(most));
  sequence.expect(n + most);
  while (true) {
    const std::int32_t id = sampler.sample(row(logits), {prompt, result.ids});
    if (result.ids.empty()) result.prefill_s = watch.lap();
    result.ids.push_back(id);
    if (std::find(settings.stop_ids.begin(), settings.stop_ids.end(), id) !=
        settings.stop_ids.end()) {
      result.finish_reason = FinishReason::Stop;
      break;
    }
    const bool go_on = !hooks.on_token || hooks.on_token(id);
    if (static_cast<Index>(result.ids.size()) == most) {
      result.finish_reason = FinishReason::Length;
      break;
    }
    if (!go_on || cancelled()) {
      result.finish_reason = FinishReason::Cancelled;
      break;
    }
    logits = sequence.extend(model, {&id, 1}, settings.attention.generated, true);
  }
  result.decode_s = watch.lap();
  return result;
}

}  // namespace minke
