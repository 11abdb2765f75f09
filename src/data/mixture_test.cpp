#include "data/mixture.h"

#include "data/test_files.h"

namespace minke {
namespace {

const std::vector<std::string> kSources = {"kjv", "a=b", "poems"};

std::string failure(const std::vector<std::string>& mixture) {
  return error_of([&] { mixture_shares(mixture, kSources); });
}

TEST(Mixture, SharesInTheOrderOfTheSources) {
  EXPECT_EQ(mixture_shares({"poems=1", "kjv=2.5", "a=b=1.5"}, kSources),
            (std::vector<double>{0.5, 0.3, 0.2}));
  EXPECT_EQ(mixture_shares({"poems=0", "kjv=7", "a=b=0"}, kSources),
            (std::vector<double>{1, 0, 0}));
  EXPECT_TRUE(mixture_shares({}, kSources).empty());
}

TEST(Mixture, WhatIsWrongIsNamed) {
  EXPECT_HOLDS(failure({"kjv=1", "a=b=1"}), "the source 'poems' has no weight");
  EXPECT_HOLDS(failure({"kjw=1"}), "did you mean 'kjv'?");
  EXPECT_HOLDS(failure({"kjv=1", "kjv=1"}), "named twice");
  EXPECT_HOLDS(failure({"kjv=0", "a=b=0", "poems=0"}), "all weights are 0");
  for (const char* bad : {"kjv", "kjv=", "kjv=-1", "kjv=nan", "kjv=inf", "kjv=1x", "kjv=1e999"})
    EXPECT_HOLDS(failure({bad}), "has no weight") << bad;
}

}  // namespace
}  // namespace minke
