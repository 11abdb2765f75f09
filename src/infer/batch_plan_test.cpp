#include "infer/batch_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <list>

#include "base/random.h"
#include "infer/latent_pages.h"

namespace minke {
namespace {

PlannedSequence decoding(Index prompt, Index generated, Index drafts = 0) {
  const Index total = prompt + generated, pages = pages_for(total - 1);
  return {.prompt = prompt,
          .total = total,
          .cached = total - 1,
          .pages = pages,
          .own_pages = pages,
          .drafts = drafts};
}
PlannedSequence catching_up(Index prompt, Index total, Index cached) {
  const Index pages = pages_for(cached);
  return {.prompt = prompt, .total = total, .cached = cached, .pages = pages, .own_pages = pages};
}

constexpr PlanLimits kRoomy{.max_batch = 8, .prefill_chunk = 100, .available_pages = 1000};

TEST(BatchPlan, ServesAllThatDecodeAndAPieceOfPrompts) {
  const PlannedSequence running[] = {decoding(10, 3), catching_up(90, 90, 0), decoding(70, 1, 1),
                                     catching_up(500, 500, 64), catching_up(5, 5, 0)};
  const StepPlan plan = plan_step(running, kRoomy);
  ASSERT_EQ(plan.pieces.size(), 4u);
  EXPECT_EQ(plan.pieces[0].n_tokens, 1);
  EXPECT_EQ(plan.pieces[0].form, AttentionForm::Absorbed);
  EXPECT_EQ(plan.pieces[1].n_tokens, 90);
  EXPECT_EQ(plan.pieces[1].form, AttentionForm::Expanded);
  EXPECT_EQ(plan.pieces[2].n_tokens, 2);   // with its draft
  EXPECT_EQ(plan.pieces[3].n_tokens, 10);  // what is left of 100; the last one waits its turn
  EXPECT_TRUE(plan.preempted.empty());
}

TEST(BatchPlan, RecomputesThePromptAndWhatWasGeneratedByTheirOwnForms) {
  const PlannedSequence prompt[] = {catching_up(50, 80, 20)};
  EXPECT_EQ(plan_step(prompt, kRoomy).pieces[0].n_tokens, 30);
  EXPECT_EQ(plan_step(prompt, kRoomy).pieces[0].form, AttentionForm::Expanded);
  const PlannedSequence generated[] = {catching_up(50, 80, 50)};
  EXPECT_EQ(plan_step(generated, kRoomy).pieces[0].n_tokens, 30);
  EXPECT_EQ(plan_step(generated, kRoomy).pieces[0].form, AttentionForm::Absorbed);
}

TEST(BatchPlan, DropsADraftBeforeItPreempts) {
  const PlannedSequence running[] = {decoding(60, 4, 1), decoding(60, 4, 1)};
  PlanLimits limits = kRoomy;
  limits.available_pages = 1;  // rows 63 fit into the first page, drafts need a second one
  const StepPlan plan = plan_step(running, limits);
  EXPECT_EQ(plan.pieces[0].n_tokens, 2);
  EXPECT_EQ(plan.pieces[1].n_tokens, 1);
  EXPECT_TRUE(plan.preempted.empty());
}

TEST(BatchPlan, PreemptsTheYoungestForTheOldest) {
  const PlannedSequence running[] = {decoding(60, 5), decoding(100, 5), decoding(200, 5)};
  PlanLimits limits = kRoomy;
  limits.available_pages = 0;
  const StepPlan plan = plan_step(running, limits);
  EXPECT_EQ(plan.preempted, std::vector<std::size_t>{2});
  EXPECT_EQ(plan.pieces.size(), 2u);
  EXPECT_FALSE(plan.stuck);

  const PlannedSequence two[] = {decoding(60, 1), decoding(60, 5)};  // the younger needs a page
  const StepPlan self = plan_step(two, limits);
  EXPECT_EQ(self.preempted, std::vector<std::size_t>{1});
  EXPECT_EQ(self.pieces.size(), 1u);

  const PlannedSequence alone[] = {decoding(60, 5)};
  EXPECT_TRUE(plan_step(alone, limits).stuck);
}

TEST(BatchPlan, AdmitsInOrderWhileThereAreAPlacePagesAndPromptTokens) {
  const PlannedSequence waiting[] = {catching_up(60, 60, 0), catching_up(60, 60, 0),
                                     catching_up(60, 60, 0)};
  EXPECT_EQ(plan_admission({}, waiting, kRoomy), 2u);  // then 100 tokens are spoken for
  PlanLimits limits{.max_batch = 2, .prefill_chunk = 1000, .available_pages = 3};
  EXPECT_EQ(plan_admission({}, waiting, limits), 2u);
  limits = {.max_batch = 8, .prefill_chunk = 1000, .available_pages = 2};
  EXPECT_EQ(plan_admission({}, waiting, limits), 2u);
  // Those that still catch up have pages promised.
  const PlannedSequence running[] = {catching_up(300, 300, 0)};
  limits.available_pages = 5;
  EXPECT_EQ(plan_admission(running, waiting, limits), 0u);
  // A first one without enough pages does begin when it is alone, and later ones do not overtake.
  const PlannedSequence large[] = {catching_up(900, 900, 0), catching_up(1, 1, 0)};
  EXPECT_EQ(plan_admission({}, large, limits), 1u);
  EXPECT_EQ(plan_admission(running, large, limits), 0u);
}

TEST(BatchPlan, KeepsPlacesForChoicesToBeForked) {
  PlannedSequence four = catching_up(10, 10, 0);
  four.choices = 4;
  const PlannedSequence waiting[] = {four, four, four};
  EXPECT_EQ(plan_admission({}, waiting, kRoomy), 2u);
  PlanLimits limits = kRoomy;
  limits.max_batch = 2;
  EXPECT_EQ(plan_admission({}, waiting, limits), 1u);
}

// Plays random requests through the two functions and checks after every step what must hold.
class Simulation {
 public:
  explicit Simulation(std::uint64_t seed) : random_(seed) {
    limits_.max_batch = 1 + below(6);
    limits_.prefill_chunk = 1 + below(200);
    n_pages_ = 5 + below(8);
    for (int i = 0; i < 12; ++i) {
      const Index prompt = 1 + below(150);
      waiting_.push_back(
          {i, prompt + 1 + below(100), {.prompt = prompt, .total = prompt, .drafts = 0}});
    }
  }

  void run() {
    for (int step = 0; !(waiting_.empty() && running_.empty()); ++step) {
      ASSERT_LT(step, 20000) << "does not end";
      admit();
      const StepPlan plan = plan_step(view(running_), limits_now());
      check(plan);
      apply(plan);
      if (testing::Test::HasFatalFailure()) return;
    }
    EXPECT_EQ(free_pages(), n_pages_);
  }

 private:
  struct Request {
    int order;
    Index end;  // total at which it ends
    PlannedSequence planned;
  };
  Index below(Index n) { return static_cast<Index>(random_.below(static_cast<std::uint64_t>(n))); }
  static std::vector<PlannedSequence> view(const std::list<Request>& requests) {
    std::vector<PlannedSequence> all;
    for (const Request& r : requests) all.push_back(r.planned);
    return all;
  }
  Index free_pages() const {
    Index used = 0;
    for (const Request& r : running_) used += r.planned.pages;
    return n_pages_ - used;
  }
  PlanLimits limits_now() const {
    PlanLimits limits = limits_;
    limits.available_pages = free_pages();
    return limits;
  }

  void admit() {
    std::size_t n = plan_admission(view(running_), view(waiting_), limits_now());
    ASSERT_TRUE(n >= 1 || !running_.empty());
    for (; n > 0; --n) {
      auto place = std::find_if(running_.begin(), running_.end(),
                                [&](const Request& r) { return r.order > waiting_.front().order; });
      running_.splice(place, waiting_, waiting_.begin());
    }
    ASSERT_LE(static_cast<Index>(running_.size()), limits_.max_batch);
    for (Request& r : running_) r.planned.drafts = r.planned.decodes() ? below(2) : 0;
  }

  void check(const StepPlan& plan) {
    const auto now = view(running_);
    ASSERT_FALSE(plan.stuck);  // each one alone fits into five pages
    Index pages = free_pages(), caught_up = 0, n_decoding = 0, n_served = 0;
    for (const std::size_t i : plan.preempted) pages += now[i].own_pages;
    const std::size_t end = now.size() - plan.preempted.size();
    ASSERT_GE(end, 1u);  // the oldest stays
    for (const PlannedPiece& piece : plan.pieces) {
      const PlannedSequence& s = now[piece.sequence];
      ASSERT_LT(piece.sequence, end);
      ASSERT_GE(piece.n_tokens, 1);
      ASSERT_LE(s.cached + piece.n_tokens, s.total + s.drafts);
      ASSERT_TRUE(s.cached >= s.prompt || s.cached + piece.n_tokens <= s.prompt);
      pages -= std::max<Index>(0, pages_for(s.cached + piece.n_tokens) - s.pages);
      if (!s.decodes()) caught_up += piece.n_tokens;
      n_served += s.decodes();
    }
    for (std::size_t i = 0; i < end; ++i) n_decoding += now[i].decodes();
    ASSERT_EQ(n_served, n_decoding);  // all that decode and were not preempted
    ASSERT_GE(pages, 0);
    ASSERT_LE(caught_up, limits_.prefill_chunk);
    ASSERT_FALSE(plan.pieces.empty());
    ASSERT_EQ(plan.pieces[0].sequence, 0u);  // the oldest goes on in every step
  }

  void apply(const StepPlan& plan) {
    std::vector<std::list<Request>::iterator> at;
    for (auto it = running_.begin(); it != running_.end(); ++it) at.push_back(it);
    for (const std::size_t i : plan.preempted) {
      PlannedSequence& s = at[i]->planned;
      s.cached = s.pages = s.own_pages = s.drafts = 0;
      auto place = std::find_if(waiting_.begin(), waiting_.end(),
                                [&](const Request& r) { return r.order > at[i]->order; });
      waiting_.splice(place, running_, at[i]);
    }
    for (const PlannedPiece& piece : plan.pieces) {
      PlannedSequence& s = at[piece.sequence]->planned;
      const bool accepted = piece.n_tokens == 2 && s.decodes() && below(2);
      const Index n = s.decodes() ? 1 + accepted : piece.n_tokens;
      s.pages = s.own_pages = std::max(s.pages, pages_for(s.cached + piece.n_tokens));
      s.cached += n;
      if (s.cached >= s.total) s.total = s.cached + 1;
      if (s.total >= at[piece.sequence]->end) running_.erase(at[piece.sequence]);
    }
  }

  Random random_;
  PlanLimits limits_;
  Index n_pages_;
  std::list<Request> waiting_, running_;
};

TEST(BatchPlan, RandomRequestsAllEndAndNoStepBreaksALimit) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    Simulation(seed).run();
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace minke
