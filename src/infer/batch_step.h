// One step of the batch engine on the model: the planned pieces of many sequences in one pass, new
// tokens where a piece reaches the end of what there is, drafts checked, and new ones made.
#pragma once
#include "infer/batch_sequence.h"
#include "infer/draft.h"

namespace minke {

struct StepPiece {
  BatchSequence* sequence;
  Index n_tokens;  // the draft included
  AttentionForm form;
  bool of_prompt = false;
};

// What came of a piece.
struct PieceResult {
  BlockVector<ScoredToken> tokens;    // new ones: none while catching up, two with a draft accepted
  std::optional<FinishReason> ended;  // with the last of them
  bool accepted_draft = false;
  PromptState prompt_state;         // of the prompt's last token, if it was computed here
  std::vector<float> first_logits;  // [V]: of the first token where other choices need them too
  std::string error;                // this sequence cannot go on; empty: it can
};

class StepRunner {
 public:
  StepRunner(const Model& model, AcceptanceRule rule) : model_(model), rule_(rule) {}

  // Caches hold the new rows afterwards, without those of rejected drafts. Nothing is thrown: what
  // fails for one sequence (a sampler or constraint that throws) is in its result; when the pass
  // fails, each piece runs alone, so that only what fails by itself ends. Fills the times of
  // `timing`, or takes it out of what is timed.
  BlockVector<PieceResult> run(std::span<const StepPiece> pieces, bool make_drafts,
                               DraftTiming& timing);

 private:
  struct Row {  // of a piece that reaches the end of its tokens
    std::size_t piece;
    Index row, n;  // in the logits: n = 1, or 2 with a draft to be checked
  };

  BlockVector<PieceResult> run_together(std::span<const StepPiece> pieces, bool make_drafts,
                                        DraftTiming& timing);
  BlockVector<PieceResult> run_alone(std::span<const StepPiece> pieces);
  Tensor main_model(std::span<const StepPiece> pieces);
  Tensor with_known_states(std::span<const StepPiece> pieces, const Tensor& computed) const;
  void take_prompt_states(std::span<const StepPiece> pieces, const Tensor& h,
                          BlockVector<PieceResult>& results) const;
  void score_prompts(std::span<const StepPiece> pieces, const Tensor& h);
  void choose(std::span<const StepPiece> pieces, const Tensor& h,
              BlockVector<PieceResult>& results);
  void choose_tokens(BatchSequence& sequence, View2<float> logits, PieceResult& result) const;
  void draft(std::span<const StepPiece> pieces, const Tensor& h,
             const BlockVector<PieceResult>& results);
  bool module_keeps_up(BatchSequence& sequence, Index begin) const;
  void run_module(std::span<const StepPiece> pieces, const Tensor& h,
                  const BlockVector<PieceResult>& results);

  const Model& model_;
  AcceptanceRule rule_;
  std::vector<Index> before_;  // rows that each piece's cache held before
};

}  // namespace minke
