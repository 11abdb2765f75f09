#include "page/run_record.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <fstream>

#include "base/error.h"
#include "page/report_table.h"
#include "page/training_report.h"

namespace minke::page {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

class RunRecordTest : public testing::Test {
 protected:
  RunRecordTest() {
    std::string pattern = (fs::temp_directory_path() / "minke-report-XXXXXX").string();
    dir_ = mkdtemp(pattern.data());
  }
  ~RunRecordTest() override { fs::remove_all(dir_); }

  // OUT of a run with this metrics.jsonl.
  std::string run(const std::string& name, const std::string& lines) {
    const fs::path directory = dir_ / (name + ".run");
    fs::create_directories(directory);
    std::ofstream(directory / "metrics.jsonl") << lines;
    return (dir_ / name).string();
  }
  static std::string step(int n, double loss, const Json& more = Json::object()) {
    Json line = {{"step", n}, {"tokens", 100 * n}, {"loss", {{"main", loss}}}};
    line.update(more);
    return line.dump() + "\n";
  }

  fs::path dir_;
};

TEST_F(RunRecordTest, ReadsWhatARunMeasured) {
  const std::string out =
      run("a", R"({"step":0,"start":true,"recipe":{"seed":1,"optimizer":{"lr":0.5}}})"
               "\n" +
                   step(1, 4, {{"tokens_per_s", 50}, {"loads", {{"2", {1, 3}}}}}) +
                   step(2, 2, {{"tokens_per_s", 25}, {"held_out_sources", {{"a.txt", 1.5}}}}) +
                   R"({"step":2,"event":"spike","tensor":null,"message":"loss 9"})"
                   "\n" +
                   step(3, 3,
                        {{"fp8", {{"0", {{"x", {0.1, 0.2}}}}, {"4", {{"x", {0.3, 0.1}}}}}},
                         {"load_ratios", {{"10", 2}, {"9", 4}}}}));
  for (const std::string& path : {out, out + "/", out + ".run", out + ".run/"}) {
    const RunRecord r = read_run(path);
    EXPECT_EQ(r.name, "a");
    EXPECT_EQ(r.n_bad_lines, 0);
    EXPECT_EQ(r.steps, 3);
    EXPECT_EQ(r.tokens, 300);
    EXPECT_EQ(r.seconds, 100. / 50 + 100. / 25);
    EXPECT_EQ(r.curve("loss.main")->raw.points(),
              (std::vector<Point>{{100, 4}, {200, 2}, {300, 3}}));
    EXPECT_EQ(r.last("held_out_sources.a.txt"), 1.5);
    EXPECT_EQ(r.last("fp8_worst.x.0"), 0.3);
    EXPECT_EQ(r.last("fp8_worst.x.1"), 0.2);
    EXPECT_EQ(r.last("nothing"), std::nullopt);
    EXPECT_EQ(r.loads.at(2).columns()[0].worst_ratio(), 1.5);
    EXPECT_EQ(r.recipe["optimizer"]["lr"], 0.5);
    ASSERT_EQ(r.events.size(), 1u);
    EXPECT_EQ(r.events[0].tokens, 200);
    EXPECT_EQ(r.events[0].kind, "spike");
    const auto layers = r.below("load_ratios.");
    ASSERT_EQ(layers.size(), 2u);
    EXPECT_EQ(layers[0].first, "9");  // by number, not by letter
  }
}

TEST_F(RunRecordTest, BadLinesAreCountedAndNamed) {
  const std::string deep = std::string(100'000, '[');
  const RunRecord r = read_run(
      run("a", step(1, 4) + "{\"step\": 2, \"tok\n" + "[1]\n" + "\n" + "{\"step\":\"x\"}\n" +
                   "{\"step\":2}\n" + step(1, 9) + deep + "\n" + "\xff\xfe\n" +
                   "{\"step\":2,\"event\":7}\n" + step(5, 3) + "{\"step\":6,\"tokens\":1"));
  EXPECT_EQ(r.n_bad_lines, 9);
  EXPECT_EQ(r.bad_lines,
            (std::vector<std::string>{"line 2: not a JSON object", "line 3: not a JSON object",
                                      "line 5: \"step\" is missing or not a whole number",
                                      "line 6: \"tokens\" is missing or not a number",
                                      "line 7: step 1 after step 1"}));
  EXPECT_EQ(r.steps, 5);
  EXPECT_EQ(r.curve("loss.main")->raw.count(), 2);
}

TEST_F(RunRecordTest, ValuesOfAnyTypeDoNoHarm) {
  const RunRecord r =
      read_run(run("a", step(1, 4,
                             {{"loads", {{"x", {1}}, {"3", "many"}, {"4", {"a", nullptr, -5}}}},
                              {"fp8", {{"0", {{"x", "often"}}}, {"1", 7}}},
                              {"lr", {}},
                              {"grad_norm", "inf"},
                              {"tokens_per_s", 0},
                              {"held_out_sources", 3}}) +
                            "{\"step\":2,\"tokens\":1e999,\"loss\":[]}\n" + step(3, 1e16) +
                            step(4, 1e16 + 2, {{"lr", 1e300}})));
  EXPECT_EQ(r.curve("lr"), nullptr);
  EXPECT_GE(r.n_bad_lines, 1);
  EXPECT_EQ(r.steps, 4);
  EXPECT_EQ(r.loads.size(), 1u);
  const std::vector<RunRecord> runs{r};
  EXPECT_NE(training_report(runs).find("</html>"), std::string::npos);
}

TEST_F(RunRecordTest, AnEmptyFileIsARunWithoutSteps) {
  const std::vector<RunRecord> runs{read_run(run("a", ""))};
  EXPECT_EQ(runs[0].steps, 0);
  const std::string page = training_report(runs);
  EXPECT_NE(page.find("No step has been recorded yet."), std::string::npos);
  EXPECT_EQ(page.find("nan"), std::string::npos);
  EXPECT_TRUE(final_json(runs)["runs"][0]["loss"].is_null());
}

TEST_F(RunRecordTest, AMissingRunNamesBothPlaces) {
  try {
    read_run(dir_ / "nothing");
    FAIL();
  } catch (const IoError& e) {
    EXPECT_NE(std::string(e.what()).find("nothing.run"), std::string::npos) << e.what();
  }
}

TEST_F(RunRecordTest, NamesAreWhatTellsRunsApart) {
  const std::vector<RunRecord> runs =
      read_runs({run("x/fp8/1", step(1, 4)), run("x/bf16/1", step(1, 4)),
                 run("x/bf16/1", step(1, 4)) + ".run"});
  EXPECT_EQ(runs[0].name, "fp8/1");
  EXPECT_EQ(runs[1].name, "bf16/1");
  EXPECT_EQ(runs[2].name, "bf16/1 (3)");
  EXPECT_EQ(read_runs({run("x/fp8/1", step(1, 4))})[0].name, "1");
}

TEST_F(RunRecordTest, TablesOfTheEnd) {
  const Json first = {{"step", 0}, {"start", true}, {"recipe", {{"out", "a"}, {"seed", 1}}}};
  const Json second = {
      {"step", 0}, {"start", true}, {"recipe", {{"out", "b"}, {"seed", 1}, {"fp8", {{"a", 2}}}}}};
  const std::vector<RunRecord> runs =
      read_runs({run("a", first.dump() + "\n" +
                              step(1, 4, {{"held_out", 3.5}, {"load_ratios", {{"1", 1.25}}}}) +
                              step(2, 4, {{"held_out", 3.75}})),
                 run("b", second.dump() + "\n" + step(1, 2, {{"mtp_acceptance", 0.875}}))});
  const Table table = final_table(runs);
  EXPECT_EQ(table.columns, (std::vector<std::string>{"run", "steps", "tokens", "loss", "held-out",
                                                     "lowest", "MTP accepted"}));
  EXPECT_EQ(table.rows[0],
            (std::vector<std::string>{"a", "2", "200", "4.0000", "3.7500", "3.5000", ""}));
  EXPECT_EQ(table.rows[1].back(), "87.50 %");
  EXPECT_EQ(table_text({{"run", "loss"}, {{"long", "1"}, {"é", "22"}}}),
            "run   loss\nlong     1\né       22\n");

  const Json json = final_json(runs);
  EXPECT_EQ(json["runs"][0]["held_out"], 3.75);
  EXPECT_EQ(json["runs"][0]["load_ratios"]["1"], 1.25);
  EXPECT_TRUE(json["runs"][1]["held_out"].is_null());

  EXPECT_EQ(recipe_differences(runs).rows,
            (std::vector<std::vector<std::string>>{{"fp8.a", "", "2"}}));
  EXPECT_EQ(layer_table(runs, "load_ratios.", "", false).rows,
            (std::vector<std::vector<std::string>>{{"1", "1.25x", ""}}));
}

}  // namespace
}  // namespace minke::page
