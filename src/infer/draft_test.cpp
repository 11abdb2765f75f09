#include "infer/draft.h"

#include <gtest/gtest.h>

namespace minke {
namespace {

TEST(MovingAverage, IsTheMeanOfFewAndFollowsMany) {
  MovingAverage average;
  for (const double x : {1., 2., 6.}) average.add(x);
  EXPECT_DOUBLE_EQ(average.value(), 3);
  for (int i = 0; i < 200; ++i) average.add(10);
  EXPECT_NEAR(average.value(), 10, 0.01);
}

// A machine on which steps take these times, in whatever order they come.
struct Machine {
  double one, two, draft, acceptance;
  Index sequences = 1;
  double carried = 0;  // accepted drafts that do not make a whole one yet

  DraftTiming step(const DraftSwitch::Use& use) {
    DraftTiming t{.n_sequences = sequences, .main_s = use.verify ? two : one};
    if (use.draft) t.draft_s = draft;
    if (use.verify) {
      t.n_verified = sequences;
      carried += acceptance * static_cast<double>(sequences);
      t.n_accepted = static_cast<Index>(carried);
      carried -= static_cast<double>(t.n_accepted);
    }
    return t;
  }
  // The share of steps that checked drafts.
  double run(DraftSwitch& drafts, int steps) {
    int verified = 0;
    for (int i = 0; i < steps; ++i) {
      const DraftSwitch::Use use = drafts.next(sequences);
      verified += use.verify;
      drafts.record(step(use));
    }
    return static_cast<double>(verified) / steps;
  }
};

TEST(DraftSwitch, OffAndAlwaysDoNotMeasure) {
  DraftSwitch off(Drafting::Off), always(Drafting::Always);
  Machine wins{1, 1.1, 0.1, 0.9}, loses{1, 2, 1, 0.1};
  EXPECT_EQ(wins.run(off, 100), 0);
  EXPECT_EQ(loses.run(always, 100), 1);
  EXPECT_FALSE(off.on());
  EXPECT_TRUE(always.on());
}

TEST(DraftSwitch, AutoStaysOnWhereDraftsWin) {
  DraftSwitch drafts(Drafting::Auto);
  Machine machine{1, 1.2, 0.1, 0.8};
  EXPECT_GT(machine.run(drafts, 1000), 0.95);
  EXPECT_TRUE(drafts.on());
  EXPECT_NEAR(drafts.gain(), 1.8 / 1.3, 0.05);
}

TEST(DraftSwitch, AutoGoesOffWhereDraftsLoseAndTriesAgain) {
  DraftSwitch drafts(Drafting::Auto);
  Machine machine{1, 1.9, 0.2, 0.3};
  machine.run(drafts, 50);
  EXPECT_FALSE(drafts.on());
  EXPECT_NEAR(drafts.gain(), 1.3 / 2.1, 0.1);
  const double share = machine.run(drafts, 5000);
  EXPECT_GT(share, 0.02);
  EXPECT_LT(share, 0.1);
  // What is written becomes easy to predict.
  machine.acceptance = 0.95;
  machine.two = 1.2;
  machine.run(drafts, 3000);
  EXPECT_TRUE(drafts.on());
  EXPECT_GT(drafts.gain(), 1);
}

TEST(DraftSwitch, AutoTellsSmallBatchesFromLargeOnes) {
  DraftSwitch drafts(Drafting::Auto);
  Machine alone{1, 1.1, 0.1, 0.7}, many{1, 1.9, 0.2, 0.7, 32};
  for (int i = 0; i < 20; ++i) {
    alone.run(drafts, 20);
    many.run(drafts, 20);
  }
  EXPECT_GT(alone.run(drafts, 100), 0.9);
  EXPECT_LT(many.run(drafts, 100), 0.2);
}

TEST(DraftSwitch, StepsWithPromptsAreNotTimed) {
  DraftSwitch drafts(Drafting::Auto);
  Machine machine{1, 1.2, 0.1, 0.8};
  for (int i = 0; i < 100; ++i) {
    DraftTiming t = machine.step(drafts.next(1));
    t.only_decoding = false;
    t.main_s = 100;
    drafts.record(t);
  }
  EXPECT_EQ(drafts.gain(), 0);
  machine.run(drafts, 100);
  EXPECT_NEAR(drafts.gain(), 1.8 / 1.3, 0.1);
}

}  // namespace
}  // namespace minke
