#include "serve/router.h"

#include <gtest/gtest.h>

namespace minke {
namespace {

TEST(Router, EveryBaseUrlHasTheRoutes) {
  for (const std::string& base : {std::string(), std::string("/v1"), std::string("/beta")}) {
    const auto chat = find_route(base + "/chat/completions");
    ASSERT_TRUE(chat.has_value()) << base;
    EXPECT_EQ(chat->route, Route::Chat);
    EXPECT_EQ(chat->beta, base == "/beta");
    EXPECT_EQ(find_route(base + "/completions")->route, Route::Completions);
    EXPECT_EQ(find_route(base + "/models")->route, Route::Models);
    EXPECT_EQ(find_route(base + "/models/a%2Fb%zz")->argument, "a/b%zz");
  }
  for (const char* path : {"", "/v1", "/v1/", "/v2/models", "/models/", "/health/", "/v1/health"})
    EXPECT_FALSE(find_route(path).has_value()) << path;
}

TEST(Router, NamesAreLabelsThatEveryReaderOfMetricsTakes) {
  for (const char* path : {"/", "/health", "/models", "/models/a", "/beta/completions"})
    EXPECT_EQ(name_of(find_route(path)->route).find_first_of("{}\"\\,= "), std::string::npos)
        << path;
}

TEST(Router, OnlyHealthAndThePageNeedNoKey) {
  EXPECT_FALSE(needs_key(find_route("/")->route));
  EXPECT_FALSE(needs_key(find_route("/health")->route));
  for (const char* path : {"/metrics", "/tokenize", "/detokenize", "/models", "/completions"})
    EXPECT_TRUE(needs_key(find_route(path)->route)) << path;
}

}  // namespace
}  // namespace minke
