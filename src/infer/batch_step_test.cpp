#include "infer/batch_step.h"

#include "infer/small_engine_model.h"
#include "infer/test_bench.h"

namespace minke {
namespace {

// One sequence, stepped by hand: drafts are made and checked only where a test says so.
class OneSequence {
 public:
  OneSequence(const Model& model, Ids prompt, Index max_tokens)
      : pool_({latent_row(model.config, DType::F32), model.config.num_hidden_layers + 1}, 20),
        runner_(model, accept_equal),
        sequence_(make_active(model.config, model.config.max_position_embeddings, pool_.n_pages(),
                              request_of(std::move(prompt), max_tokens),
                              std::make_shared<RecordingSink>()),
                  pool_) {
    step(sequence_.request().prompt_tokens(), AttentionForm::Expanded, false);
  }
  // Returns whether a draft was accepted.
  bool decode(bool make_drafts) {
    return step(sequence_.draft ? 2 : 1, AttentionForm::Absorbed, make_drafts);
  }
  const BatchSequence& sequence() const { return sequence_; }
  const Ids& ids() const { return ids_; }

 private:
  bool step(Index n, AttentionForm form, bool make_drafts) {
    const StepPiece piece{&sequence_, n, form};
    DraftTiming timing;
    const PieceResult result = runner_.run({&piece, 1}, make_drafts, timing).front();
    EXPECT_EQ(result.error, "");
    for (const ScoredToken& token : result.tokens) ids_.push_back(token.id);
    return result.accepted_draft;
  }

  PagePool pool_;
  StepRunner runner_;
  BatchSequence sequence_;
  Ids ids_;
};

TEST(StepRunner, ASequenceThatDecodedWithoutDraftsDraftsAgain) {
  const Model model = model_with_perfect_module();
  const Ids prompt = random_prompt(70, model.config.vocab_size, 4);
  Sequence alone(model);
  const Ids expected = generate(model, alone, prompt, {.sampler = {}, .max_tokens = 120}).ids;
  OneSequence one(model, prompt, 120);
  const auto without_drafts = [&](int n) {
    for (int i = 0; i < n; ++i) {
      one.decode(false);
      EXPECT_FALSE(one.sequence().draft);
    }
  };
  without_drafts(30);
  for (int round = 0; round < 2; ++round) {
    EXPECT_FALSE(one.decode(true));  // there was none to check; now there is
    for (int i = 0; i < 10; ++i) EXPECT_TRUE(one.decode(true)) << i;
    EXPECT_TRUE(one.decode(false));
    without_drafts(5);
  }
  EXPECT_FALSE(one.sequence().module_rows);  // not from the beginning: no prefix is kept with them
  EXPECT_EQ(one.ids(), Ids(expected.begin(), expected.begin() + std::ssize(one.ids())));
}

TEST(StepRunner, DraftsOfAModuleThatSeesTheEndAloneChangeNoToken) {
  const Model model = small_engine_model(Compute::Fp32);
  const Ids prompt = random_prompt(70, model.config.vocab_size, 4);
  Sequence alone(model);
  const Ids expected = generate(model, alone, prompt, {.sampler = {}, .max_tokens = 150}).ids;
  OneSequence one(model, prompt, 150);
  int accepted = 0;
  for (int i = 0; i < 75; ++i) accepted += one.decode(i % 25 > 9);
  EXPECT_EQ(one.ids(), Ids(expected.begin(), expected.begin() + std::ssize(one.ids())));
  EXPECT_GT(accepted, 0);
}

}  // namespace
}  // namespace minke
