#include "ops/isa.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace minke {
namespace {

TEST(Isa, NamesRoundTripAndUnknownOnesAreRefused) {
  for (Isa isa : {Isa::Scalar, Isa::Avx2, Isa::Avx512, Isa::Amx})
    EXPECT_EQ(parse_isa(name_of(isa)), isa);
  EXPECT_THROW(parse_isa("avx1024"), ConfigError);
}

TEST(Isa, TheBestAvailableOneIsChosenUntilToldOtherwise) {
  const auto isas = available_isas();
  EXPECT_EQ(isas.front(), Isa::Scalar);
  EXPECT_EQ(chosen_isa(), isas.back());
  choose_isa(Isa::Scalar);
  EXPECT_EQ(chosen_isa(), Isa::Scalar);
  choose_isa(isas.back());
  for (Isa isa : {Isa::Avx2, Isa::Avx512, Isa::Amx})
    if (isa > isas.back()) {
      EXPECT_THROW(choose_isa(isa), ConfigError);
    }
}

}  // namespace
}  // namespace minke
