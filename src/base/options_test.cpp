#include "base/options.h"

#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace minke {
namespace {

using nlohmann::json;

struct Inner {
  std::int64_t hidden_size = 64;
  std::optional<std::int64_t> q_lora_rank;

  template <class Visitor>
  void visit(Visitor& field) {
    field("hidden_size", hidden_size, "width of the residual stream", at_least(1));
    field("q_lora_rank", q_lora_rank, "latent size of queries; null for none");
  }
};

struct Sample {
  std::int64_t max_batch = 8;
  int threads = 2;
  std::uint64_t seed = 1;
  double lr = 1e-3;
  float clip = 0.1f;
  bool shuffle = true;
  std::string compute = "bf16";
  std::vector<std::int64_t> widths = {1, 2};
  std::vector<std::string> data = {"a"};
  Inner model;

  template <class Visitor>
  void visit(Visitor& field) {
    field("max-batch", max_batch, "sequences decoded together", between(1, 100));
    field("threads", threads, "threads");
    field("seed", seed, "seed");
    field("lr", lr, "learning rate", above(0));
    field("clip", clip, "largest gradient norm");
    field("shuffle", shuffle, "draw documents in random order");
    field("compute", compute, "arithmetic", one_of({"fp32", "bf16"}));
    field("widths", widths, "some widths");
    field("data", data, "files");
    field("model", model, "the model");
  }
};

// The message of the error that `body` throws.
template <class E, class Body>
std::string message_of(Body body) {
  try {
    body();
  } catch (const E& error) {
    return error.what();
  }
  return "(no error)";
}

void read(Sample& sample, const char* text) {
  options_from_json(OptionList(sample), json::parse(text), "x.json");
}

TEST(Options, JsonBothWays) {
  Sample a;
  a.max_batch = 3;
  a.clip = 0.3f;
  a.model.q_lora_rank = 16;
  a.data = {"x", "y,z"};
  const json written = options_to_json(OptionList(a));
  EXPECT_EQ(written["max_batch"], 3);
  EXPECT_EQ(written["model"]["q_lora_rank"], 16);
  EXPECT_EQ(written["clip"].dump(), "0.3");
  Sample b;
  options_from_json(OptionList(b), written, "x.json");
  EXPECT_EQ(options_to_json(OptionList(b)), options_to_json(OptionList(a)));
  EXPECT_EQ(b.clip, 0.3f);
  EXPECT_EQ(b.data, a.data);
}

TEST(Options, JsonKeepsTheOrderOfTheList) {
  Sample a;
  const std::string text = options_to_json(OptionList(a)).dump();
  EXPECT_LT(text.find("max_batch"), text.find("compute"));
  EXPECT_LT(text.find("compute"), text.find("data"));
}

TEST(Options, WhatIsNotNamedKeepsItsValue) {
  Sample a;
  read(a, R"({"model": {"hidden_size": 32}, "lr": 1})");
  EXPECT_EQ(a.model.hidden_size, 32);
  EXPECT_EQ(a.lr, 1.0);
  EXPECT_EQ(a.max_batch, 8);
}

TEST(Options, DashAndUnderscoreAreTheSame) {
  Sample a;
  read(a, R"({"max-batch": 4})");
  EXPECT_EQ(a.max_batch, 4);
  set_option(OptionList(a), "max_batch=5");
  EXPECT_EQ(a.max_batch, 5);
}

TEST(Options, UnknownKeyNamesTheNearest) {
  Sample a;
  EXPECT_EQ(message_of<ConfigError>([&] { read(a, R"({"max_bach": 4})"); }),
            "x.json: there is no option 'max_bach'; did you mean 'max_batch'?");
  EXPECT_EQ(message_of<ConfigError>([&] { read(a, R"({"model": {"hiden_size": 4}})"); }),
            "x.json: there is no option 'model.hiden_size'; did you mean 'model.hidden_size'?");
  EXPECT_EQ(message_of<ConfigError>([&] { read(a, R"({"zzzzzzzzzz": 4})"); }),
            "x.json: there is no option 'zzzzzzzzzz'");
}

TEST(Options, WrongTypesAndRangesAreNamed) {
  Sample a;
  EXPECT_EQ(message_of<ConfigError>([&] { read(a, R"({"max_batch": "many"})"); }),
            "x.json: max_batch is \"many\", but must be an integer");
  EXPECT_EQ(message_of<ConfigError>([&] { read(a, R"({"max_batch": 1.5})"); }),
            "x.json: max_batch is 1.5, but must be an integer");
  EXPECT_EQ(message_of<ConfigError>([&] { read(a, R"({"max_batch": 0})"); }),
            "x.json: max_batch is 0, but must be at least 1 and at most 100");
  EXPECT_EQ(message_of<ConfigError>([&] { read(a, R"({"lr": 0})"); }),
            "x.json: lr is 0, but must be above 0");
  EXPECT_EQ(message_of<ConfigError>([&] { read(a, R"({"compute": "int8"})"); }),
            "x.json: compute is 'int8', but must be one of fp32, bf16");
  EXPECT_EQ(message_of<ConfigError>([&] { read(a, R"({"shuffle": 1})"); }),
            "x.json: shuffle is 1, but must be true or false");
  EXPECT_EQ(message_of<ConfigError>([&] { read(a, R"({"model": 1})"); }),
            "x.json: model is 1, but must be an object with settings");
  EXPECT_EQ(message_of<ConfigError>([&] { read(a, R"({"lr": null})"); }),
            "x.json: lr is null, but must be a number");
  EXPECT_EQ(message_of<ConfigError>([&] { read(a, "[1]"); }),
            "x.json: found [1], but settings must be a JSON object");
}

TEST(Options, IntegersThatDoNotFitAreRefused) {
  for (const char* text :
       {R"({"threads": 3000000000})", R"({"threads": -3000000000})", R"({"seed": -1})",
        R"({"seed": 1e30})", R"({"max_batch": 18446744073709551615})", R"({"clip": 1e60})"}) {
    Sample a;
    EXPECT_THROW(read(a, text), ConfigError) << text;
  }
  Sample a;
  read(a, R"({"seed": 18446744073709551615, "max_batch": 1e2})");
  EXPECT_EQ(a.seed, 18446744073709551615u);
  EXPECT_EQ(a.max_batch, 100);
}

TEST(Options, SetTakesEveryType) {
  Sample a;
  const OptionList list(a);
  for (const char* text : {"lr=3e-4", "shuffle=false", "compute=fp32", "widths=4,5,6", "data=x,y",
                           "model.q_lora_rank=7", "model.hidden_size=128", "seed=9"})
    set_option(list, text);
  EXPECT_EQ(a.lr, 3e-4);
  EXPECT_FALSE(a.shuffle);
  EXPECT_EQ(a.widths, (std::vector<std::int64_t>{4, 5, 6}));
  EXPECT_EQ(a.data, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(a.model.q_lora_rank, 7);
  set_option(list, "model.q_lora_rank=null");
  EXPECT_FALSE(a.model.q_lora_rank.has_value());
  set_option(list, "widths=");
  EXPECT_TRUE(a.widths.empty());
  EXPECT_THROW(set_option(list, "lr"), UsageError);
  EXPECT_THROW(set_option(list, "=1"), UsageError);
  EXPECT_THROW(set_option(list, "lr=fast"), ConfigError);
  EXPECT_THROW(set_option(list, "lr=nan"), ConfigError);
  EXPECT_THROW(set_option(list, "widths=1,,2"), ConfigError);
  EXPECT_THROW(set_option(list, "model=1"), ConfigError);
  EXPECT_THROW(set_option(list, "max_batch= "), ConfigError);
}

TEST(Options, FlagsAssignAndHelpShowsDefaults) {
  Sample a;
  CLI::App app;
  add_flags(app, OptionList(a), {"data"});
  const std::string help = app.help();
  EXPECT_NE(help.find("--max-batch INT=8"), std::string::npos) << help;
  EXPECT_NE(help.find("--model.hidden-size"), std::string::npos) << help;
  EXPECT_EQ(help.find("--data"), std::string::npos) << help;
  app.parse("--max-batch 9 --no-shuffle --widths 7,8 --model.hidden-size 16", false);
  EXPECT_EQ(a.max_batch, 9);
  EXPECT_FALSE(a.shuffle);
  EXPECT_EQ(a.widths, (std::vector<std::int64_t>{7, 8}));
  EXPECT_EQ(a.model.hidden_size, 16);
}

TEST(Options, ABadFlagIsAUsageError) {
  Sample a;
  CLI::App app;
  add_flags(app, OptionList(a));
  EXPECT_EQ(message_of<UsageError>([&] { app.parse("--max-batch 900", false); }),
            "--max-batch: max_batch is 900, but must be at least 1 and at most 100");
}

TEST(OptionsFile, MissingAndMalformed) {
  Sample a;
  EXPECT_THROW(options_from_file(OptionList(a), "/nonexistent/x.json"), IoError);
  const std::string path = testing::TempDir() + "minke_options_test.json";
  std::ofstream(path) << R"({"lr": )";
  EXPECT_THROW(options_from_file(OptionList(a), path), FormatError);
  std::ofstream(path) << R"({"lr": 2})";
  options_from_file(OptionList(a), path);
  EXPECT_EQ(a.lr, 2.0);
  std::remove(path.c_str());
}

struct Segment {
  std::int64_t until = 0;
  std::string shape = "constant";

  template <class Visitor>
  void visit(Visitor& field) {
    field("until", until, "tokens", at_least(1));
    field("shape", shape, "how the value moves", one_of({"constant", "cosine"}));
  }
};

struct Segments {
  std::vector<Segment> segments;
  Inner model;

  template <class Visitor>
  void visit(Visitor& field) {
    field("segments", segments, "some segments");
    field("model", model, "the model");
  }
};

TEST(Options, ListsOfStructsAreArraysOfObjects) {
  Segments s;
  const OptionList list(s);
  options_from_json(list, json::parse(R"({"segments": [{"until": 10e12},
                                          {"until": 143e11, "shape": "cosine"}]})"),
                    "r.json");
  ASSERT_EQ(s.segments.size(), 2u);
  EXPECT_EQ(s.segments[0].until, 10000000000000);
  EXPECT_EQ(s.segments[0].shape, "constant");
  EXPECT_EQ(s.segments[1].shape, "cosine");
  Segments again;
  options_from_json(OptionList(again), json(options_to_json(list)), "record");
  EXPECT_EQ(again.segments[1].until, 14300000000000);
  set_option(list, R"(segments=[{"until": 5}])");  // another list, not more elements
  ASSERT_EQ(s.segments.size(), 1u);
  EXPECT_EQ(s.segments[0].until, 5);
  EXPECT_EQ(list.options()[0].name, "segments");
}

TEST(Options, ListsOfStructsAreCheckedByElement) {
  Segments s;
  const OptionList list(s);
  const auto error = [&](const char* text) {
    return message_of<ConfigError>([&] { options_from_json(list, json::parse(text), "r.json"); });
  };
  EXPECT_EQ(error(R"({"segments": 3})"),
            "r.json: segments is 3, but must be a list, each element an object");
  EXPECT_EQ(error(R"({"segments": [{"until": 1}, {"until": 0}]})"),
            "r.json: segments[1]: until is 0, but must be at least 1");
  EXPECT_EQ(error(R"({"segments": [{"til": 1}]})"),
            "r.json: segments[0]: there is no option 'til'; did you mean 'until'?");
  EXPECT_EQ(error(R"({"segments": [1]})"),
            "r.json: segments[0]: found 1, but settings must be a JSON object");
  EXPECT_EQ(message_of<ConfigError>([&] { set_option(list, "segments=[{"); }),
            "--set: segments is \"[{\", but must be a list, each element an object");
}

}  // namespace
}  // namespace minke
