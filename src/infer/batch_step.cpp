#include "infer/batch_step.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "base/threads.h"
#include "infer/token_score.h"
#include "ops/permute.h"

namespace minke {
namespace {

// Rows of a prompt that are scored at once: their logits are rows times vocabulary.
constexpr Index kScoredRows = 64;

std::span<float> as_span(View2<float> logits, Index row) {
  return {&logits(row, 0), static_cast<std::size_t>(logits.extent(1))};
}

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

Tensor gather(View2<const float> h, std::span<const Index> rows) {
  const Index n = static_cast<Index>(rows.size());
  Tensor to = Tensor::uninitialized({n, h.extent(1)});
  for (Index i = 0; i < n; ++i)
    copy(h.rows(rows[static_cast<std::size_t>(i)], 1), to.v2().rows(i, 1));
  return to;
}

}  // namespace

BlockVector<PieceResult> StepRunner::run(std::span<const StepPiece> pieces, bool make_drafts,
                                         DraftTiming& timing) {
  before_.clear();
  for (const StepPiece& piece : pieces) before_.push_back(piece.sequence->cached());
  try {
    return run_together(pieces, make_drafts, timing);
  } catch (const std::exception& e) {
    log_warning(fmt::format("a step of {} sequences failed, each is tried alone: {}", pieces.size(),
                            e.what()));
  }
  timing.only_decoding = false;  // times of such a step say nothing
  return run_alone(pieces);
}

// Throws only while no token has been chosen.
BlockVector<PieceResult> StepRunner::run_together(std::span<const StepPiece> pieces,
                                                  bool make_drafts, DraftTiming& timing) {
  const auto start = Clock::now();
  BlockVector<PieceResult> results(pieces.size());
  const Tensor h = main_model(pieces);
  take_prompt_states(pieces, h, results);
  score_prompts(pieces, h);
  choose(pieces, h, results);
  timing.main_s = seconds_since(start);
  if (make_drafts) {
    const auto drafting = Clock::now();
    draft(pieces, h, results);
    timing.draft_s = seconds_since(drafting);
  }
  return results;
}

BlockVector<PieceResult> StepRunner::run_alone(std::span<const StepPiece> pieces) {
  const std::vector<Index> before = before_;
  BlockVector<PieceResult> results(pieces.size());
  for (std::size_t p = 0; p < pieces.size(); ++p) {
    pieces[p].sequence->cache().truncate(before[p]);
    before_ = {before[p]};
    DraftTiming not_measured;
    try {
      results[p] = std::move(run_together(pieces.subspan(p, 1), false, not_measured).front());
    } catch (const std::exception& e) {
      results[p].error = e.what();
    }
  }
  return results;
}

// -> states [T, D] of all new tokens. Those of prompts computed before are known.
Tensor StepRunner::main_model(std::span<const StepPiece> pieces) {
  BlockVector<std::int32_t> tokens;
  BlockVector<Segment> segments;
  bool any_known = false;
  for (const StepPiece& piece : pieces) {
    BatchSequence& s = *piece.sequence;
    const Index begin = s.cached();
    if (s.known_state(begin)) {
      for (Index i = 0; i < model_.config.num_hidden_layers; ++i) s.cache().count_rows(i, 1);
      any_known = true;
      continue;
    }
    s.cache().reserve(begin + piece.n_tokens);
    for (Index i = begin; i < begin + piece.n_tokens; ++i)
      tokens.push_back(i < s.total() ? s.token(i) : *s.draft);
    segments.push_back({&s.cache(), piece.n_tokens, piece.form});
  }
  Tensor computed;
  if (!segments.empty()) computed = cached_forward(model_, tokens, segments);
  return any_known ? with_known_states(pieces, computed) : std::move(computed);
}

Tensor StepRunner::with_known_states(std::span<const StepPiece> pieces,
                                     const Tensor& computed) const {
  Index n_rows = 0;
  for (const StepPiece& piece : pieces) n_rows += piece.n_tokens;
  Tensor all = Tensor::uninitialized({n_rows, model_.config.hidden_size});
  Index row = 0, from = 0;
  for (std::size_t p = 0; p < pieces.size(); row += pieces[p++].n_tokens) {
    const Index n = pieces[p].n_tokens;
    if (const auto* state = pieces[p].sequence->known_state(before_[p])) {
      copy(state->v2(), all.v2().rows(row, 1));
      continue;
    }
    copy(computed.v2().rows(from, n), all.v2().rows(row, n));
    from += n;
  }
  return all;
}

void StepRunner::take_prompt_states(std::span<const StepPiece> pieces, const Tensor& h,
                                    BlockVector<PieceResult>& results) const {
  Index end = 0;
  for (std::size_t p = 0; p < pieces.size(); ++p) {
    const BatchSequence& s = *pieces[p].sequence;
    end += pieces[p].n_tokens;
    if (s.cached() != s.request().prompt_tokens() || !pieces[p].of_prompt) continue;
    if (s.known_state(before_[p])) continue;
    results[p].prompt_state = std::make_shared<const Tensor>(gather(h.v2(), {{end - 1}}));
  }
}

// The state at position i scores token i + 1.
void StepRunner::score_prompts(std::span<const StepPiece> pieces, const Tensor& h) {
  Index first_row = 0;
  for (std::size_t p = 0; p < pieces.size(); first_row += pieces[p++].n_tokens) {
    ActiveRequest& request = pieces[p].sequence->request();
    if (!request.scores_prompt()) continue;
    const Index begin = before_[p];
    const Index end = std::min(begin + pieces[p].n_tokens, request.prompt_tokens() - 1);
    for (Index at = begin; at < end; at += kScoredRows) {
      const Index n = std::min(kScoredRows, end - at);
      Tensor logits = output_logits(model_, h.v2().rows(first_row + at - begin, n));
      parallel_for(n, [&](Index i) {
        ScoredToken& token = request.prompt_scores[static_cast<std::size_t>(at + i + 1)];
        token = score_token(as_span(logits.v2(), i), token.id, *request.request.top_logprobs);
      });
    }
  }
}

void StepRunner::choose(std::span<const StepPiece> pieces, const Tensor& h,
                        BlockVector<PieceResult>& results) {
  BlockVector<Row> rows;
  BlockVector<Index> of_h;
  Index end = 0;
  for (std::size_t p = 0; p < pieces.size(); ++p) {
    BatchSequence& s = *pieces[p].sequence;
    end += pieces[p].n_tokens;
    if (s.cached() < s.total() || s.request().max_generated == 0) continue;
    const Index n = s.cached() - s.total() + 1;  // the last token's, and the draft's
    rows.push_back({p, static_cast<Index>(of_h.size()), n});
    results[p].tokens.reserve(static_cast<std::size_t>(n));
    for (Index i = n; i > 0; --i) of_h.push_back(end - i);
  }
  if (rows.empty()) return;
  Tensor logits = output_logits(model_, gather(h.v2(), of_h).v2());
  parallel_for(static_cast<Index>(rows.size()), [&](Index i) {
    const Row& row = rows[static_cast<std::size_t>(i)];
    BatchSequence& s = *pieces[row.piece].sequence;
    PieceResult& result = results[row.piece];
    try {
      choose_tokens(s, logits.v2().rows(row.row, row.n), result);
    } catch (const std::exception& e) {
      result.error = e.what();
    }
    s.draft.reset();
    s.cache().truncate(before_[row.piece] + pieces[row.piece].n_tokens - row.n + 1 +
                       result.accepted_draft);
  });
}

// Row 0 gives the next token. If the draft is that token, row 1 gives the one after it.
void StepRunner::choose_tokens(BatchSequence& s, View2<float> logits, PieceResult& result) const {
  const bool first_of_many = s.n_generated() == 0 && s.request().request.n_choices > 1;
  if (first_of_many && s.choice() == 0) {
    const auto row = as_span(logits, 0);
    result.first_logits.assign(row.begin(), row.end());
  }
  ScoredToken token = s.draw(as_span(logits, 0));
  const bool checked = logits.extent(0) == 2;
  const bool accepted = checked && rule_(*s.draft, token.id);
  if (accepted) token.id = *s.draft;
  result.ended = s.accept(token.id);
  result.tokens.push_back(std::move(token));
  result.accepted_draft = accepted;
  if (!accepted || result.ended) return;
  result.tokens.push_back(s.draw(as_span(logits, 1)));
  result.ended = s.accept(result.tokens.back().id);
}

// A module that fails stops nobody: its rows then do not keep up, and there are no drafts.
void StepRunner::draft(std::span<const StepPiece> pieces, const Tensor& h,
                       const BlockVector<PieceResult>& results) {
  try {
    run_module(pieces, h, results);
  } catch (const std::exception& e) {
    log_warning(fmt::format("drafts of {} sequences failed: {}", pieces.size(), e.what()));
    for (const StepPiece& piece : pieces) {
      piece.sequence->draft.reset();
      piece.sequence->module_failed = true;
    }
  }
}

// The module runs over the positions that the main model has gained: each with its state and the
// token after it. Prompts whose rows of the module do not keep up are left out.
void StepRunner::run_module(std::span<const StepPiece> pieces, const Tensor& h,
                            const BlockVector<PieceResult>& results) {
  BlockVector<std::int32_t> tokens;
  BlockVector<Segment> segments;
  BlockVector<Index> rows, last;  // of h; of the module's result, where a draft is wanted
  BlockVector<BatchSequence*> drafting;
  Index first_row = 0;
  for (std::size_t p = 0; p < pieces.size(); first_row += pieces[p++].n_tokens) {
    BatchSequence& s = *pieces[p].sequence;
    const Index begin = before_[p];
    if (!module_keeps_up(s, begin) || results[p].ended || !results[p].error.empty()) continue;
    const bool chosen = !results[p].tokens.empty();
    const Index n = std::min(s.cached(), s.total() - 1) - begin;
    if (n == 0 || (chosen && !s.can_use_draft())) continue;
    for (Index i = 0; i < n; ++i) {
      rows.push_back(first_row + i);
      tokens.push_back(s.token(begin + i + 1));
    }
    segments.push_back({&s.cache(), n, pieces[p].form});
    if (!chosen) continue;
    last.push_back(static_cast<Index>(rows.size()) - 1);
    drafting.push_back(&s);
  }
  if (rows.empty()) return;
  const Tensor state = cached_mtp_forward(model_, 0, tokens, gather(h.v2(), rows).v2(), segments);
  if (last.empty()) return;
  Tensor logits = output_logits(model_, gather(state.v2(), last).v2());
  parallel_for(static_cast<Index>(last.size()), [&](Index i) {
    BatchSequence& s = *drafting[static_cast<std::size_t>(i)];
    try {
      s.draft = s.guess(as_span(logits.v2(), i));
    } catch (const std::exception&) {
      s.module_failed = true;
    }
  });
}

// Whether the module's rows end where the new ones begin; those of a sequence that decodes are
// begun anew for it.
bool StepRunner::module_keeps_up(BatchSequence& s, Index begin) const {
  const Index layer = model_.config.num_hidden_layers;
  if (s.module_failed) return false;
  s.module_rows = s.module_rows && s.cache().length(layer) == begin;
  if (s.module_rows) return true;
  if (begin < s.request().prompt_tokens()) return false;  // its pages may be others' too
  if (s.cache().origin(layer) == 0 || s.cache().end(layer) != begin)
    s.cache().restart(layer, begin);
  return true;
}

}  // namespace minke
