#include "serve/openai_request.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "serve/api_error.h"

namespace minke {
namespace {

const ApiLimits kLimits{.vocab = 100};

std::string chat_body(const std::string& more) {
  return R"({"model":"m","messages":[{"role":"user","content":"hi"}])" + more + "}";
}
ChatRequest chat(const std::string& more) {
  return parse_chat_request(parse_body(chat_body(more)), kLimits, false);
}
CompletionRequest completion(const std::string& more) {
  return parse_completion_request(parse_body(R"({"model":"m")" + more + "}"), kLimits);
}

// The field of the 400, or "none".
template <class Call>
std::string wrong_field(Call call) {
  try {
    call();
  } catch (const ApiError& e) {
    EXPECT_EQ(e.status, 400);
    return e.param;
  }
  return "none";
}

TEST(OpenAiRequest, DefaultsAndNullsAreTheSame) {
  for (const std::string more : {"", R"(,"temperature":null,"n":null,"stop":null,"stream":null,
       "max_tokens":null,"tools":null,"response_format":null,"logit_bias":null,"unknown":[1])"}) {
    const ChatRequest r = chat(more);
    EXPECT_EQ(r.common.sampler.temperature, 1);
    EXPECT_EQ(r.common.sampler.top_p, 1);
    EXPECT_EQ(r.common.n, 1);
    EXPECT_FALSE(r.common.stream);
    EXPECT_FALSE(r.common.max_tokens.has_value());
    EXPECT_EQ(r.tool_choice, ToolChoice::None);
  }
}

TEST(OpenAiRequest, NumbersThatAreNoneNameTheirField) {
  for (const char* value : {"-2147483648", "9223372036854775808", "1e308", "\"1\"", "true", "1.5",
                            "[]", "{}", "-1", "18446744073709551615"})
    for (const char* field : {"max_tokens", "max_completion_tokens", "n", "top_logprobs"})
      EXPECT_EQ(wrong_field([&] { chat(fmt::format(R"(,"{}":{})", field, value)); }), field)
          << value;
  for (const char* value : {"-3", "2.5", "1e308", "\"hot\"", "false", "[0]"})
    for (const char* field : {"temperature", "presence_penalty", "frequency_penalty"})
      EXPECT_EQ(wrong_field([&] { chat(fmt::format(R"(,"{}":{})", field, value)); }), field);
  EXPECT_EQ(wrong_field([] { chat(R"(,"stream":"yes")"); }), "stream");
  EXPECT_EQ(wrong_field([] { chat(R"(,"top_logprobs":3)"); }), "top_logprobs");
  EXPECT_EQ(wrong_field([] { chat(R"(,"stream_options":{})"); }), "stream_options");
}

TEST(OpenAiRequest, BodiesThatAreNoJsonObjects) {
  const std::string deep(200000, '[');
  for (const std::string& body :
       {std::string("{"), std::string("[]"), std::string("null"), std::string(), deep,
        std::string("{\"a\":\"\xff\"}"), std::string(R"({"a":"\ud800"})"),
        std::string(R"({"a":1e400})"), std::string(R"({"a":1,"a":2})"), std::string("{\"a\":1}x")})
    EXPECT_THROW(parse_body(body), ApiError) << body.substr(0, 40);
  std::string many = "{";
  for (int i = 0; i < 600; ++i) many += fmt::format("{}\"{}\":0", i ? "," : "", i);
  EXPECT_THROW(parse_body(many + "}"), ApiError);
}

TEST(OpenAiRequest, Messages) {
  const auto field = [](const std::string& message) {
    return wrong_field([&] {
      parse_chat_request(parse_body(R"({"model":"m","messages":[)" + message + "]}"), kLimits,
                         false);
    });
  };
  EXPECT_EQ(field(""), "messages");
  EXPECT_EQ(field(R"({"role":"king","content":"x"})"), "messages[0].role");
  EXPECT_EQ(field(R"({"role":"user"})"), "messages[0].content");
  EXPECT_EQ(field(R"({"role":"user","content":[{"type":"image_url"}]})"),
            "messages[0].content[0].type");
  EXPECT_EQ(field(R"({"role":"tool","content":"x"})"), "messages[0].tool_call_id");
  EXPECT_EQ(field(R"({"role":"assistant","content":"x","prefix":true})"), "messages[0].prefix");
  EXPECT_EQ(field(R"({"role":"developer","content":[{"type":"text","text":"x"}]})"), "none");
  const ChatRequest r =
      parse_chat_request(parse_body(R"({"model":"m","messages":[{"role":"developer","content":[
        {"type":"text","text":"a"},{"type":"text","text":"b"}]}]})"),
                         kLimits, false);
  EXPECT_EQ(r.messages[0].role, "system");
  EXPECT_EQ(r.messages[0].content, "ab");
}

TEST(OpenAiRequest, PrefixIsForTheLastMessageOfBeta) {
  const ApiJson body = parse_body(R"({"model":"m","messages":[{"role":"user","content":"x"},
      {"role":"assistant","content":"y","prefix":true}]})");
  EXPECT_TRUE(parse_chat_request(body, kLimits, true).prefix);
  EXPECT_EQ(wrong_field([&] { parse_chat_request(body, kLimits, false); }), "messages[1].prefix");
}

TEST(OpenAiRequest, Tools) {
  const std::string tools =
      R"(,"tools":[{"type":"function","function":{"name":"a"}},
                   {"type":"function","function":{"name":"b"}}])";
  EXPECT_EQ(chat(tools).tool_choice, ToolChoice::Auto);
  EXPECT_EQ(chat(tools + R"(,"tool_choice":"none")").tool_choice, ToolChoice::None);
  const ChatRequest named =
      chat(tools + R"(,"tool_choice":{"type":"function","function":{"name":"b"}})");
  ASSERT_EQ(named.tools.size(), 1u);
  EXPECT_EQ(named.tools[0].name, "b");
  EXPECT_EQ(named.tool_choice, ToolChoice::Required);
  EXPECT_EQ(wrong_field([&] {
              chat(tools + R"(,"tool_choice":{"type":"function","function":{"name":"c"}})");
            }),
            "tool_choice.function.name");
  EXPECT_EQ(wrong_field([] { chat(R"(,"tools":[{"type":"function","function":{}}])"); }),
            "tools[0].function.name");
  EXPECT_EQ(
      wrong_field([] { chat(R"(,"tools":[{"type":"function","function":{"name":"a b"}}])"); }),
      "tools[0].function.name");
}

TEST(OpenAiRequest, PromptsOfCompletions) {
  EXPECT_EQ(completion(R"(,"prompt":"a")").prompts.size(), 1u);
  EXPECT_EQ(completion(R"(,"prompt":["a","b"])").prompts.size(), 2u);
  EXPECT_EQ(completion(R"(,"prompt":[1,2,99])").prompts.size(), 1u);
  EXPECT_EQ(completion(R"(,"prompt":[[1],[2,3]])").prompts.size(), 2u);
  EXPECT_EQ(completion(R"(,"prompt":"a")").common.max_tokens, 16);
  for (const char* prompt : {"[]", "7", "[100]", "[-1]", "[1,\"a\"]", "[1.5]", "{}"})
    EXPECT_EQ(wrong_field([&] { completion(fmt::format(R"(,"prompt":{})", prompt)); }), "prompt")
        << prompt;
  EXPECT_EQ(wrong_field([] { completion(R"(,"prompt":[[1],"a",{}])"); }), "prompt[2]");
  EXPECT_EQ(wrong_field([] { completion(R"(,"prompt":"a","max_tokens":0)"); }), "max_tokens");
  EXPECT_EQ(completion(R"(,"prompt":"a","max_tokens":0,"echo":true)").common.max_tokens, 0);
}

TEST(OpenAiRequest, StopLists) {
  EXPECT_EQ(chat(R"(,"stop":"x")").common.stop, std::vector<std::string>{"x"});
  EXPECT_EQ(chat(R"(,"stop":["x","y"])").common.stop.size(), 2u);
  EXPECT_EQ(wrong_field([] { chat(R"(,"stop":[1])"); }), "stop[0]");
  EXPECT_EQ(wrong_field([] { chat(R"(,"stop":")" + std::string(257, 'x') + "\""); }), "stop");
  std::string many = "[\"a\"";
  for (int i = 0; i < 16; ++i) many += ",\"a\"";
  EXPECT_EQ(wrong_field([&] { chat(",\"stop\":" + many + "]"); }), "stop");
}

// Nothing but ApiError may come out, whatever bytes come in.
TEST(OpenAiRequest, MutatedRequestsAreAnsweredOrRefused) {
  const std::string seed = chat_body(
      R"(,"temperature":0.5,"stop":["a","b"],"stream":true,"stream_options":{"include_usage":true},
        "tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}],
        "tool_choice":"auto","logit_bias":{"5":1},"prompt":[[1,2]],"logprobs":true)");
  const char* replacements[] = {"\"", "{", "}", "[", "]", "-", "9", "null", "\\ud800", "\xff", ","};
  std::uint64_t state = 1;
  const auto random = [&](std::size_t n) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    return static_cast<std::size_t>(state >> 33) % n;
  };
  int refused = 0;
  for (int round = 0; round < 10000; ++round) {
    std::string body = seed;
    for (std::size_t k = 0; k <= random(3); ++k) {
      const std::size_t at = random(body.size());
      body.replace(at, random(4), replacements[random(std::size(replacements))]);
    }
    try {
      const ApiJson json = parse_body(body);
      parse_chat_request(json, kLimits, true);
      parse_completion_request(json, kLimits);
    } catch (const ApiError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 5000);
}

}  // namespace
}  // namespace minke
