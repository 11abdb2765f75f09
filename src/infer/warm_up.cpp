#include "infer/warm_up.h"

#include <algorithm>
#include <cmath>

#include "base/random.h"
#include "infer/batch_loop.h"

namespace minke {
namespace {

// New tokens of a sequence: its first one, then two steps with drafts.
constexpr Index kNewTokens = 8;
// Kept buffers come in eight sizes between two powers of two.
constexpr double kShrink = 7. / 8;

struct IgnoringSink : RequestSink {
  void on_prompt(std::vector<ScoredToken>) override {}
  bool on_token(Index, ScoredToken) override { return true; }
  void on_finish(Index, FinishReason) override {}
  void on_done(const RequestUsage&) override {}
};

BatchSettings settings_of_trial(BatchSettings settings) {
  settings.prefix_cache = false;
  settings.prefix_dir.clear();
  settings.touched_bytes = 0;
  if (settings.drafting == Drafting::Auto) settings.drafting = Drafting::Always;
  return settings;
}

class WarmUpRun {
 public:
  WarmUpRun(const Model& model, const BatchSettings& settings, const WarmUpLimits& limits)
      : model_(model), settings_(settings_of_trial(settings)), limits_(limits) {}

  WarmUp run() {
    const Index longest = settings_.context - kNewTokens;
    if (longest < 1) return done_;
    for (double share = 1; settings_.max_batch * share >= 1 && go_on(); share *= kShrink)
      run_full_step(of_share(settings_.max_batch, share),
                    std::min(longest, of_share(settings_.prefill_chunk, share)));
    read_prompt(longest);
    done_.seconds = elapsed();
    return done_;
  }

 private:
  static Index of_share(Index n, double share) {
    return std::max<Index>(1, std::lround(static_cast<double>(n) * share));
  }
  double elapsed() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  bool go_on() const {
    return !(limits_.cancelled && limits_.cancelled()) &&
           (done_.steps == 0 || elapsed() < limits_.seconds);
  }

  // Sequences get their first tokens; they decode beside the last one's prompt; all decode.
  void run_full_step(Index n_sequences, Index n_prompt) {
    BatchLoop loop(model_, settings_);
    for (Index i = 1; i < n_sequences; ++i) add(loop, 1);
    step(loop);
    add(loop, n_prompt);
    step(loop);
    step(loop);
    loop.cancel_all();
  }

  void read_prompt(Index n) {
    BatchLoop loop(model_, settings_);
    n = std::min(n, loop.n_pages() * kKeyTile);
    add(loop, n);
    for (Index read = 0; read < n && go_on(); read += settings_.prefill_chunk) {
      step(loop);
      done_.prompt_tokens =
          std::max(done_.prompt_tokens, std::min(n, read + settings_.prefill_chunk));
    }
    loop.cancel_all();
  }

  void step(BatchLoop& loop) {
    if (loop.idle()) return;
    done_.sequences = std::max(done_.sequences, loop.n_requests());
    loop.step();
    ++done_.steps;
  }

  void add(BatchLoop& loop, Index n_prompt) {
    GenerationRequest request;
    const auto vocabulary = static_cast<std::uint64_t>(model_.config.vocab_size);
    for (Index i = std::min(n_prompt, loop.n_pages() * kKeyTile); i > 0; --i)
      request.prompt.push_back(static_cast<std::int32_t>(random_.below(vocabulary)));
    request.max_tokens = kNewTokens;
    auto active = make_active(model_.config, settings_.context, loop.n_pages(), std::move(request),
                              std::make_shared<IgnoringSink>());
    active->id = active->place = ++last_id_;
    loop.add(std::move(active));
  }

  const Model& model_;
  const BatchSettings settings_;
  const WarmUpLimits& limits_;
  const Clock::time_point start_ = Clock::now();
  Random random_{0};
  RequestId last_id_ = 0;
  WarmUp done_;
};

}  // namespace

WarmUp warm_up(const Model& model, const BatchSettings& settings, const WarmUpLimits& limits) {
  return WarmUpRun(model, settings, limits).run();
}

}  // namespace minke
