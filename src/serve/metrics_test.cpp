#include "serve/metrics.h"

#include <gtest/gtest.h>

#include <set>
#include <sstream>

namespace minke {
namespace {

TEST(Metrics, HistogramsCountUpToTheirBounds) {
  Histogram h({1, 2});
  for (const double value : {0.5, 1.0, 1.5, 7.0}) h.add(value);
  EXPECT_EQ(h.text("x", "help"),
            "# HELP x help\n# TYPE x histogram\n"
            "x_bucket{le=\"1\"} 2\nx_bucket{le=\"2\"} 3\nx_bucket{le=\"+Inf\"} 4\n"
            "x_sum 10\nx_count 4\n");
}

TEST(Metrics, EachFamilyHasOneTypeLineBeforeItsSamples) {
  const std::vector<std::pair<std::string, std::string>> info = {{"isa", "a\"b"}};
  Metrics metrics(info);
  RequestRecord record;
  record.route = "/v1/models";
  for (const int status : {200, 200, 401}) {
    record.status = status;
    metrics.record(record);
  }
  BatchStatistics engine;
  engine.running = 3;
  engine.drafting = true;
  engine.draft_gain = 0.5;
  const std::string text = metrics.text(engine);
  EXPECT_NE(text.find("{route=\"/v1/models\",status=\"200\"} 2\n"), std::string::npos);
  EXPECT_NE(text.find("minke_requests_running 3\n"), std::string::npos);
  EXPECT_NE(text.find("minke_drafting 1\n"), std::string::npos);
  EXPECT_NE(text.find("minke_draft_gain 0.5\n"), std::string::npos);
  EXPECT_NE(text.find("isa=\"a\\\"b\""), std::string::npos);
  EXPECT_EQ(text.back(), '\n');

  std::set<std::string> families;
  std::string family, line;
  for (std::istringstream lines(text); std::getline(lines, line);) {
    if (line.starts_with("# TYPE ")) {
      family = line.substr(7, line.find(' ', 7) - 7);
      EXPECT_TRUE(families.insert(family).second) << family;
    } else if (!line.starts_with("#")) {
      EXPECT_TRUE(line.starts_with(family)) << line;
    }
  }
}

}  // namespace
}  // namespace minke
