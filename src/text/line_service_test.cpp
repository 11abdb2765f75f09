#include "text/line_service.h"

#include <gtest/gtest.h>

#include <sstream>

#include "base/error.h"
#include "text/golden_tokenizer_test.h"

namespace minke {
namespace {

using nlohmann::json;

class LineServiceGolden : public testing::Test {
 protected:
  LineServiceGolden() { test::write_golden_model(dir_, false); }

  // Answers to lines, which end in \n.
  std::vector<json> ask(const std::string& lines) {
    std::istringstream in(lines);
    std::ostringstream out;
    failed_ = LineService(dir_.path()).run(in, out);
    std::vector<json> answers;
    std::istringstream read(out.str());
    for (std::string line; std::getline(read, line);) answers.push_back(json::parse(line));
    return answers;
  }

  test::TemporaryDirectory dir_;
  std::int64_t failed_ = 0;
};

TEST_F(LineServiceGolden, AnswersInOrder) {
  const auto answers =
      ask("{\"text\": \"Hello\"}\n"
          "{\"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}], \"seed\": 3}\n"
          "{\"messages\": [], \"add_generation_prompt\": true}\r\n"
          "{\"ids\": [0, 19923, 500000]}\n"
          "{\"ids\": [0, 19923], \"skip_special_tokens\": true}\n"
          "{\"text\": \"a\u2028b\u0085c\"}\n"
          "{\"text\": \"\"}");
  ASSERT_EQ(answers.size(), 7u);
  EXPECT_EQ(answers[0], json({{"ids", {19923}}}));
  EXPECT_EQ(answers[1]["text"], "<｜begin▁of▁sentence｜><｜User｜>Hello");
  EXPECT_EQ(answers[1]["ids"], json({0, 128803, 19923}));
  EXPECT_EQ(answers[2]["ids"], json({0, 128804}));
  EXPECT_EQ(answers[3], json({{"text", "<｜begin▁of▁sentence｜>Hello"}}));
  EXPECT_EQ(answers[4], json({{"text", "Hello"}}));
  EXPECT_FALSE(answers[5].contains("error"));
  EXPECT_EQ(answers[6]["ids"], json::array());
  EXPECT_EQ(failed_, 0);
}

TEST_F(LineServiceGolden, BadLinesGiveErrorsInTheirPlace) {
  const std::string deep(100000, '[');
  const std::string closed = deep + std::string(100000, ']');
  const std::vector<std::string> bad = {
      "",
      "nonsense",
      "3",
      "{\"text\": 3}",
      "{}",
      "{\"text\": \"\xFF\"}",
      "{\"text\": \"\\ud800\"}",
      "{\"ids\": [-1]}",
      "{\"ids\": [1.5]}",
      "{\"ids\": [4294967296]}",
      "{\"ids\": 3}",
      "{\"ids\": [1], \"skip_special_tokens\": 1}",
      "{\"messages\": 3}",
      "{\"messages\": [{\"role\": \"user\"}]}",
      "{\"messages\": [], \"add_generation_prompt\": 0}",
      "{\"text\": \"a\"",
      "{\"text\": \"a\", \"text\": \"b\"}",
      deep,
      "{\"messages\": [{\"role\": " + closed + "}]}",
      "{\"messages\": [], \"add_generation_prompt\": " + closed + "}"};
  std::string lines;
  for (const std::string& line : bad) lines += line + "\n{\"text\": \"Hello\"}\n";
  const auto answers = ask(lines);
  ASSERT_EQ(answers.size(), 2 * bad.size());
  for (std::size_t i = 0; i < bad.size(); ++i) {
    EXPECT_TRUE(answers[2 * i].contains("error")) << bad[i] << answers[2 * i];
    EXPECT_EQ(answers[2 * i].size(), 1u);
    EXPECT_EQ(answers[2 * i + 1]["ids"], json({19923}));
  }
  EXPECT_EQ(failed_, static_cast<std::int64_t>(bad.size()));
}

TEST_F(LineServiceGolden, ATemplateCanBeNamed) {
  LineService r1(dir_.path(), "deepseek-r1");
  const json answer =
      json::parse(r1.answer(R"({"messages": [], "add_generation_prompt": true})").line);
  EXPECT_EQ(answer["text"], "<｜begin▁of▁sentence｜><｜Assistant｜><think>\n");
  EXPECT_THROW(LineService(dir_.path(), "vicuna"), ConfigError);
}

}  // namespace
}  // namespace minke
