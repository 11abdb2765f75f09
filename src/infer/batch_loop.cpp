#include "infer/batch_loop.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log.h"
#include "base/machine_memory.h"

namespace minke {
namespace {

// Rows of one MTP module are kept where drafts may be made.
PageLayout layout_of(const Model& model, Drafting drafting) {
  const ModelConfig& c = model.config;
  const bool module = drafting != Drafting::Off && c.num_nextn_predict_layers > 0;
  const StageRange here = c.local_stages().front();  // to the last layer
  return {latent_row(c, cache_dtype(model)), c.num_hidden_layers + (module ? 1 : 0), here.first};
}

bool older(const std::unique_ptr<BatchSequence>& a, const std::unique_ptr<BatchSequence>& b) {
  const auto key = [](const BatchSequence& s) { return std::pair(s.request().id, s.choice()); };
  return key(*a) < key(*b);
}

void insert_by_age(std::vector<std::unique_ptr<BatchSequence>>& all,
                   std::unique_ptr<BatchSequence> s) {
  all.insert(std::upper_bound(all.begin(), all.end(), s, older), std::move(s));
}

double seconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

void check_settings(const BatchSettings& s, const ModelConfig& config) {
  const auto require = [](bool good, std::string_view name, Index value, std::string_view wanted) {
    if (!good) throw ConfigError(fmt::format("{} is {}; expected {}", name, value, wanted));
  };
  require(s.max_batch >= 1, "max-batch", s.max_batch, "1 or more sequences");
  require(s.max_waiting >= 1, "max-waiting", s.max_waiting, "1 or more requests");
  require(s.prefill_chunk >= 1, "prefill-chunk", s.prefill_chunk, "1 or more tokens");
  require(s.cache_bytes >= 0, "cache-bytes", s.cache_bytes, "0 (by itself) or more");
  require(s.touched_bytes >= 0, "touched-bytes", s.touched_bytes, "0 or more");
  require(s.context >= 0 && s.context <= config.max_position_embeddings, "context", s.context,
          fmt::format("at most the model's {} (max_position_embeddings), or 0 for that",
                      config.max_position_embeddings));
}

}  // namespace

BatchSettings resolve_settings(const Model& model, BatchSettings s) {
  check_settings(s, model.config);
  if (s.context == 0) s.context = model.config.max_position_embeddings;
  const auto page = static_cast<Index>(layout_of(model, s.drafting).bytes());
  if (s.cache_bytes == 0) {
    const auto free = static_cast<Index>(read_machine_memory().available_bytes);
    s.cache_bytes = s.max_batch * pages_for(s.context) * page;
    if (free > 0) s.cache_bytes = std::min(s.cache_bytes, std::max(free / 4, page));
  }
  if (s.cache_bytes < page)
    throw ConfigError(
        fmt::format("cache-bytes is {}, less than one page of {} tokens; expected at least {}",
                    s.cache_bytes, kKeyTile, page));
  return s;
}

BatchLoop::BatchLoop(const Model& model, const BatchSettings& settings, AcceptanceRule rule)
    : model_(model),
      settings_(settings),
      pool_(layout_of(model, settings.drafting),
            settings.cache_bytes / static_cast<Index>(layout_of(model, settings.drafting).bytes()),
            model.layer_ranks),
      prefixes_(pool_),
      decode_form_prefixes_(pool_),
      runner_(model, rule),
      drafts_(model.config.num_nextn_predict_layers > 0 ? settings.drafting : Drafting::Off) {
  pool_.touch(static_cast<std::size_t>(settings.touched_bytes));
  if (settings.prefix_dir.empty() || !settings.prefix_cache) return;
  MINKE_ASSERT(!model.layer_ranks);  // rows of layers on other ranks are not here to be written
  store_.emplace(settings.prefix_dir, model, pool_.layout());
  store_->load(prefixes_, pool_);
}

void BatchLoop::add(std::shared_ptr<ActiveRequest> request) {
  requests_.emplace(request->id, request);
  insert_by_age(waiting_, std::make_unique<BatchSequence>(std::move(request), pool_));
}

// Requests that came together have ids in a row, and one place until the last of them has begun.
Index BatchLoop::n_places() const {
  Index n = 0;
  RequestId last = 0;  // no place
  for (const auto& [id, request] : requests_) {
    if (request->started || request->place == last) continue;
    last = request->place;
    ++n;
  }
  return n;
}

void BatchLoop::step() {
  admit();
  const DraftSwitch::Use use = drafts_.next(n_decoding());
  const StepPlan step = plan(use.verify);
  DraftTiming timing;
  const BlockVector<StepPiece> pieces = pieces_of(step, timing);
  if (step.stuck && step.preempted.empty()) finish(*running_.front(), FinishReason::Length);
  preempt(step);
  make_room(pieces);
  if (!pieces.empty()) run(pieces, use.draft, timing);
  sweep();
}

// Whose prompt another one is computing right now waits for it, and those behind go on.
void BatchLoop::admit() {
  if (waiting_.empty()) return;
  std::vector<PlannedSequence> running, waiting;
  std::vector<BatchSequence*> computing;  // prompts, by age
  std::vector<std::size_t> ready;         // of waiting_
  const auto note = [&](BatchSequence& s) {
    if (s.cached() < s.request().prompt_tokens()) computing.push_back(&s);
  };
  for (const auto& s : running_) {
    running.push_back(s->planned(BatchSequence::OwnPages::Leave));
    note(*s);
  }
  for (std::size_t i = 0; i < waiting_.size(); ++i) {
    if (waits_for_prefix(*waiting_[i], computing)) continue;
    waiting.push_back(waiting_[i]->planned(BatchSequence::OwnPages::Leave));
    ready.push_back(i);
    note(*waiting_[i]);
  }
  ready.resize(plan_admission(running, waiting,
                              {settings_.max_batch, settings_.prefill_chunk, available_pages()}));
  for (const std::size_t i : ready) begin(std::move(waiting_[i]));
  std::erase(waiting_, nullptr);
}

bool BatchLoop::waits_for_prefix(const BatchSequence& s, std::span<BatchSequence* const> older) {
  const ActiveRequest& request = s.request();
  if (!settings_.prefix_cache || request.scores_prompt()) return false;
  Index most = 0;
  for (const BatchSequence* other : older)
    if (other->request().prompt_form() == request.prompt_form())
      most = std::max(most, shared_blocks(other->request().request.prompt, request.request.prompt));
  if (most == 0) return false;
  return static_cast<Index>(prefixes_of(request).find(request.request.prompt).pages.size()) < most;
}

// All logits of a prompt to be scored are needed: nothing of it is taken from the prefix cache.
void BatchLoop::begin(std::unique_ptr<BatchSequence> s) {
  ActiveRequest& request = s->request();
  s->make_lists();
  if (settings_.prefix_cache && !request.scores_prompt())
    adopt(*s, prefixes_of(request).find(request.request.prompt));
  if (!request.started) {
    request.started = true;
    request.started_at = Clock::now();
    request.usage.cached_tokens = s->cached();
    counts_.prompt_tokens += static_cast<std::uint64_t>(request.usage.prompt_tokens);
    counts_.cached_prompt_tokens += static_cast<std::uint64_t>(request.usage.cached_tokens);
  }
  insert_by_age(running_, std::move(s));
}

// The end's page is used meanwhile, so that it does not go when room is made for its copy.
void BatchLoop::adopt(BatchSequence& s, const PrefixCache::Match& match) {
  s.begin_with(match.pages, drafts_.on() && match.module_rows);
  if (!match.end) return;
  pool_.use(match.end->page);
  free_pages(1);
  if (pool_.n_free() > 0) s.begin_with_end(*match.end);
  pool_.drop(match.end->page);
}

Index BatchLoop::n_decoding() const {
  return std::count_if(running_.begin(), running_.end(), [](const auto& s) {
    return s->planned(BatchSequence::OwnPages::Leave).decodes();
  });
}

StepPlan BatchLoop::plan(bool verify_drafts) const {
  // More pages than any step takes: then nobody is preempted, and whose the pages are is not asked.
  const Index most = 2 * static_cast<Index>(running_.size()) + pages_for(settings_.prefill_chunk);
  const auto own =
      available_pages() > most ? BatchSequence::OwnPages::Leave : BatchSequence::OwnPages::Count;
  BlockVector<PlannedSequence> running;
  for (const auto& s : running_) {
    running.push_back(s->planned(own));
    if (!verify_drafts) running.back().drafts = 0;
  }
  return plan_step(running, {settings_.max_batch, settings_.prefill_chunk, available_pages()});
}

BlockVector<StepPiece> BatchLoop::pieces_of(const StepPlan& plan, DraftTiming& timing) const {
  BlockVector<StepPiece> pieces;
  for (const PlannedPiece& piece : plan.pieces) {
    BatchSequence& s = *running_[piece.sequence];
    const bool decodes = s.planned(BatchSequence::OwnPages::Leave).decodes();
    timing.only_decoding &= decodes;
    timing.n_sequences += decodes;
    timing.n_verified += decodes && piece.n_tokens == 2;
    pieces.push_back({&s, piece.n_tokens, piece.form, s.cached() < s.request().prompt_tokens()});
  }
  return pieces;
}

// Those preempted are the last ones that run, and older than all that wait.
void BatchLoop::preempt(const StepPlan& plan) {
  for (std::size_t i = 0; i < plan.preempted.size(); ++i) {
    running_.back()->give_pages_back();
    insert_by_age(waiting_, std::move(running_.back()));
    running_.pop_back();
    ++counts_.preemptions;
  }
}

void BatchLoop::make_room(std::span<const StepPiece> pieces) {
  Index missing = 0;
  for (const StepPiece& piece : pieces) {
    const BatchSequence& s = *piece.sequence;
    const Index held = static_cast<Index>(s.cache().table().size());
    missing += std::max<Index>(0, pages_for(s.cached() + piece.n_tokens) - held);
  }
  free_pages(missing);
}

void BatchLoop::free_pages(Index n) {
  if (n > pool_.n_free()) decode_form_prefixes_.make_room(n);
  if (n > pool_.n_free()) prefixes_.make_room(n);
}

void BatchLoop::run(std::span<const StepPiece> pieces, bool make_drafts, DraftTiming timing) {
  ++counts_.steps;
  BlockVector<PieceResult> results = runner_.run(pieces, make_drafts, timing);
  for (std::size_t i = 0; i < results.size(); ++i) {
    timing.n_accepted += results[i].accepted_draft;
    finish_piece(pieces[i], results[i]);
  }
  for (auto& s : forked_) {
    Sequences& with_others = s->cached() > 0 ? running_ : waiting_;
    insert_by_age(with_others, std::move(s));
  }
  forked_.clear();
  drafts_.record(timing);
  counts_.drafted += static_cast<std::uint64_t>(timing.n_verified);
  counts_.accepted += static_cast<std::uint64_t>(timing.n_accepted);
}

// What a piece means to its request. Choices are forked before anything is told to the sink, while
// the prompt's pages are sure to be there.
void BatchLoop::finish_piece(const StepPiece& piece, PieceResult& result) {
  BatchSequence& s = *piece.sequence;
  if (s.finished) return;  // its sink threw over another choice
  ActiveRequest& request = s.request();
  if (settings_.prefix_cache && piece.of_prompt) remember_prompt(s, std::move(result.prompt_state));
  if (!result.error.empty()) {
    log_warning(fmt::format("request {} ends: {}", request.id, result.error));
    return finish(s, FinishReason::Error);
  }
  if (s.cached() < request.prompt_tokens()) return;
  if (request.scores_prompt()) {
    request.prompt_delivered = true;
    tell(request, [&](RequestSink& sink) { sink.on_prompt(std::move(request.prompt_scores)); });
  }
  if (request.max_generated == 0) return finish(s, FinishReason::Length);
  if (!result.first_logits.empty()) fork_choices(s, result.first_logits);
  emit(s, result.tokens, result.ended);
}

// `state`: of the prompt's last token, when the sequence has come there.
void BatchLoop::remember_prompt(const BatchSequence& s, PromptState state) {
  const auto prompt = s.cached_prompt();
  const auto n_blocks = prompt.size() / static_cast<std::size_t>(kKeyTile);
  const auto has_module_rows = [&](Index n) {
    return s.module_rows && s.cache().length(model_.config.num_hidden_layers) >= n;
  };
  PrefixCache& prefixes = prefixes_of(s.request());
  prefixes.insert(prompt, s.cache().table().first(n_blocks),
                  has_module_rows(static_cast<Index>(n_blocks) * kKeyTile));
  if (!state) return;
  const Index last = s.request().prompt_tokens() - 1;
  prefixes.insert_end(prompt, {s.cache().table()[static_cast<std::size_t>(last / kKeyTile)],
                               std::move(state), has_module_rows(last)});
}

void BatchLoop::fork_choices(BatchSequence& lead, std::span<const float> first_logits) {
  for (Index k = 1; k < lead.request().request.n_choices; ++k) {
    auto choice = lead.fork(k);
    std::vector<float> logits(first_logits.begin(), first_logits.end());
    try {
      ScoredToken token = choice->draw(logits);
      const auto ended = choice->accept(token.id);
      emit(*choice, {&token, 1}, ended);
    } catch (const std::exception& e) {
      log_warning(fmt::format("request {} ends: {}", lead.request().id, e.what()));
      finish(*choice, FinishReason::Error);
    }
    if (!choice->finished) forked_.push_back(std::move(choice));
  }
}

// A stop id counts as generated but is not handed out.
void BatchLoop::emit(BatchSequence& s, std::span<ScoredToken> tokens,
                     std::optional<FinishReason> ended) {
  ActiveRequest& request = s.request();
  for (ScoredToken& token : tokens) {
    if (request.usage.generated_tokens++ == 0) request.first_token_at = Clock::now();
    ++counts_.generated_tokens;
    const bool is_stop = ended == FinishReason::Stop && &token == &tokens.back();
    if (is_stop) break;
    bool go_on = true;
    const bool told = tell(
        request, [&](RequestSink& sink) { go_on = sink.on_token(s.choice(), std::move(token)); });
    if (!told) return;
    if (!go_on) return finish(s, FinishReason::Stop);
  }
  if (ended) finish(s, *ended);
}

void BatchLoop::finish(BatchSequence& s, FinishReason reason) {
  if (s.finished) return;
  ActiveRequest& request = s.request();
  const Index n = s.unforked() ? request.request.n_choices : 1;
  s.finished = true;
  s.give_pages_back();
  for (Index k = s.choice(); k < s.choice() + n; ++k) {
    if (!tell(request, [&](RequestSink& sink) { sink.on_finish(k, reason); })) return;
    --request.unfinished;
  }
  if (request.unfinished == 0) end_request(request);
}

void BatchLoop::end_request(ActiveRequest& request) {
  const auto now = Clock::now();
  RequestUsage& usage = request.usage;
  const auto started = request.started ? request.started_at : now;
  const auto first = usage.generated_tokens > 0 ? request.first_token_at : now;
  usage.queue_s = seconds(request.submitted_at, started);
  usage.prefill_s = seconds(started, first);
  usage.decode_s = seconds(first, now);
  request.ended = true;
  ++counts_.ended;
  try {
    request.sink->on_done(usage);
  } catch (const std::exception& e) {
    log_warning(
        fmt::format("request {}: its receiver failed at the end: {}", request.id, e.what()));
  }
}

template <class F>
bool BatchLoop::tell(ActiveRequest& request, F&& f) {
  if (request.ended) return false;
  try {
    f(*request.sink);
    return true;
  } catch (const std::exception& e) {
    abandon(request, e.what());
  } catch (...) {
    abandon(request, "an exception of unknown type");
  }
  return false;
}

void BatchLoop::abandon(ActiveRequest& request, const char* why) {
  log_warning(fmt::format("request {} ends: its receiver failed: {}", request.id, why));
  for (Sequences* all : {&running_, &waiting_, &forked_})
    for (const auto& s : *all)
      if (s && &s->request() == &request) {
        s->finished = true;
        s->give_pages_back();
      }
  end_request(request);
}

void BatchLoop::sweep() {
  const auto done = [](const auto& s) { return s->finished || s->request().ended; };
  std::erase_if(running_, done);
  std::erase_if(waiting_, done);
  std::erase_if(requests_, [](const auto& entry) { return entry.second->ended; });
}

void BatchLoop::cancel(RequestId id) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return;
  const std::shared_ptr<ActiveRequest> request = found->second;
  for (Sequences* all : {&running_, &waiting_})
    for (const auto& s : *all)
      if (&s->request() == request.get()) finish(*s, FinishReason::Cancelled);
  sweep();
}

void BatchLoop::cancel_all() {
  while (!requests_.empty()) cancel(requests_.begin()->first);
}

void BatchLoop::save_prefixes() const {
  if (!store_) return;
  try {
    store_->save(prefixes_, pool_);
  } catch (const std::exception& e) {
    log_warning(fmt::format("prefixes are not kept: {}", e.what()));
  }
}

BatchStatistics BatchLoop::statistics() const {
  BatchStatistics s = counts_;
  s.waiting = n_places();
  s.running = std::count_if(requests_.begin(), requests_.end(),
                            [](const auto& entry) { return entry.second->started; });
  s.pages_total = pool_.n_pages();
  s.pages_used = pool_.n_used();
  s.pages_cached = pool_.n_kept();
  s.drafting = drafts_.on();
  s.draft_gain = drafts_.gain();
  return s;
}

}  // namespace minke
