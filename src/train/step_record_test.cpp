#include "train/step_record.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"
#include "io/safetensors.h"

namespace minke {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

class Scratch {
 public:
  Scratch() {
    std::string pattern = (fs::temp_directory_path() / "minke-step-XXXXXX").string();
    path_ = mkdtemp(pattern.data());
  }
  ~Scratch() { fs::remove_all(path_); }
  fs::path operator/(const char* name) const { return path_ / name; }

 private:
  fs::path path_;
};

std::vector<double> numbers(const SafetensorsFile& file, const std::string& name) {
  const Tensor t = file.read(name);
  std::vector<double> x(static_cast<std::size_t>(t.size()));
  for (std::size_t i = 0; i < x.size(); ++i) switch (t.dtype()) {
      case DType::F64:
        x[i] = static_cast<const double*>(t.raw())[i];
        break;
      case DType::F32:
        x[i] = static_cast<const float*>(t.raw())[i];
        break;
      case DType::I64:
        x[i] = static_cast<double>(static_cast<const std::int64_t*>(t.raw())[i]);
        break;
      default:
        ADD_FAILURE() << name << " is " << name_of(t.dtype());
    }
  return x;
}

double largest(const std::vector<double>& x) {
  double m = 0;
  for (double v : x) m = std::max(m, std::abs(v));
  return m;
}

// Elements of parameters in FP32, over all tensors: seen, and further than 1e-5 from the expected
// value. (Adam turns a gradient of rounding noise into a step of nearly lr: single elements of
// small tensors differ between correct implementations, so the share is taken over all of them.)
struct ParameterElements {
  std::size_t seen = 0, beyond = 0;
};

bool is_loss(const std::string& name) {
  return name.find(".loss.") != std::string::npos || name.ends_with("grad_norm");
}

// What an element may differ by in FP32: the tolerance that tests/golden/README.md gives its kind.
double allowed_fp32(const std::string& name, const std::vector<double>& want, double lr) {
  if (is_loss(name)) return 2e-6 * std::abs(want[0]);
  if (name.starts_with("grad.")) return 2e-5 * largest(want);
  if (name.find(".load.") != std::string::npos) return 0;
  if (name.ends_with("e_score_correction_bias")) return 1e-6;
  // Counts times one factor; sigmoids of FP32 logits and their means.
  if (name.starts_with("balance.")) return name.ends_with(".f") ? 1e-12 : 1e-6;
  return 2 * lr;
}

// In double: the errors measured there for FP32 (7.6e-7 of losses, 3.4e-6 of gradients, 1.3e-7 of
// the router) times the ratio of the roundings, and sixteen-fold for another order of sums.
double allowed_fp64(const std::string& name, const std::vector<double>& want) {
  constexpr double rounding = 16 * 0x1p-29;
  if (is_loss(name)) return 7.6e-7 * rounding * std::abs(want[0]);
  if (name.starts_with("grad.")) return 3.4e-6 * rounding * largest(want);
  if (name.find(".load.") != std::string::npos) return 0;
  if (name.ends_with("e_score_correction_bias")) return 1e-6;  // moved in FP32 there
  if (name.starts_with("balance.")) return name.ends_with(".f") ? 1e-12 : 1.3e-7 * rounding;
  return 1e-9;  // parameters; for all but one of a thousand elements
}

// One tensor against the expected one.
void compare(const std::string& name, const std::vector<double>& got,
             const std::vector<double>& want, double lr, ParameterElements& parameters) {
  ASSERT_EQ(got.size(), want.size()) << name;
  double worst = 0;
  std::size_t at = 0, beyond = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double diff = std::abs(got[i] - want[i]);
    if (!(diff <= worst)) worst = diff, at = i;
    beyond += !(diff <= 1e-5);
  }
  const double allowed = allowed_fp32(name, want, lr);
  if (allowed == 2 * lr) parameters.seen += got.size(), parameters.beyond += beyond;
  EXPECT_LE(worst, allowed) << name << "[" << at << "]: " << got[at] << ", expected " << want[at];
}

// One tensor of a run in double. `stored`: rounding of the expected numbers in their file. A
// thousandth of the elements of each parameter may have a gradient so near to zero that Adam makes
// its rounding visible; they too stay within what the golden page asks of most.
void compare_double(const std::string& name, const std::vector<double>& got,
                    const std::vector<double>& want, double stored) {
  ASSERT_EQ(got.size(), want.size()) << name;
  const bool parameter = name.starts_with("step") && !is_loss(name) &&
                         name.find(".load.") == std::string::npos && !name.ends_with("_bias");
  const double allowed = allowed_fp64(name, want);
  std::size_t beyond = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double diff = std::abs(got[i] - want[i]) - stored * std::abs(want[i]);
    beyond += !(diff <= allowed);
    ASSERT_LE(diff, parameter ? 1e-5 : allowed)
        << name << "[" << i << "]: " << got[i] << ", expected " << want[i];
  }
  EXPECT_LE(1000 * beyond, got.size()) << name;
}

// Runs the case and compares every expected tensor whose name `rename` maps to one that is written.
template <class Rename>
int check_case(const fs::path& dir, Json changes, std::int64_t steps, Rename rename) {
  Json hyper = Json::parse(read_file(dir / "expected.json"))["hyper_parameters"];
  hyper.update(changes);
  const Scratch scratch;
  std::ofstream(scratch / "hyper.json") << hyper;
  const StepSettings settings = StepSettings::load(scratch / "hyper.json");
  record_steps(dir, dir / "expected.safetensors", steps, settings, scratch / "out.safetensors");

  const SafetensorsFile want = SafetensorsFile::open(dir / "expected.safetensors");
  const SafetensorsFile got = SafetensorsFile::open(scratch / "out.safetensors");
  ParameterElements parameters;
  int compared = 0;
  for (const TensorInfo& info : want.tensors()) {
    const std::string name = rename(info.name);
    if (name.empty()) continue;
    if (!got.find(name)) {
      ADD_FAILURE() << name << " was not written";
      continue;
    }
    EXPECT_EQ(got.at(name).shape, info.shape) << name;
    if (settings.compute == "fp64")
      compare_double(name, numbers(got, name), numbers(want, info.name),
                     info.dtype == DType::F32 ? 0x1p-24 : 0);
    else
      compare(name, numbers(got, name), numbers(want, info.name), settings.lr, parameters);
    ++compared;
  }
  EXPECT_LE(static_cast<double>(parameters.beyond), 1e-3 * static_cast<double>(parameters.seen));
  return compared;
}

std::string written_name(const std::string& name) {
  if (name == "tokens" || name == "step1.main_logits") return "";
  return name.starts_with("grad_f32.") || name.starts_with("grad_alpha1.") ? "" : name;
}

// One MTP module; two, and a group of experts that stays idle.
constexpr const char* kCases[] = {"train-step", "train-step-mtp2"};

TEST(StepRecordGolden, EveryTensorInDouble) {
  for (const char* name : kCases)
    EXPECT_GE(check_case(fs::path(MINKE_GOLDEN_DIR) / name, Json::object(), 3, written_name), 200);
}

TEST(StepRecordGolden, InFp32) {
  for (const char* name : kCases)
    EXPECT_GE(check_case(fs::path(MINKE_GOLDEN_DIR) / name, {{"compute", "fp32"}}, 3, written_name),
              200);
}

// The gradient of the balance loss alone is far below that of the others: seen with alpha = 1.
TEST(StepRecordGolden, GradientOfTheRouterWithAlphaOne) {
  for (const char* name : kCases)
    for (const char* compute : {"fp64", "fp32"}) {
      const int compared = check_case(
          fs::path(MINKE_GOLDEN_DIR) / name, {{"alpha", 1.0}, {"compute", compute}}, 1,
          [](const std::string& name) {
            return name.starts_with("grad_alpha1.") ? "grad." + name.substr(12) : std::string();
          });
      EXPECT_GE(compared, 2);
    }
}

// Moments follow the compute unless they are given.
TEST(StepRecord, TypesOfTheNumbersWritten) {
  const fs::path dir = fs::path(MINKE_GOLDEN_DIR) / "train-step";
  const auto parameters_with = [&](const Json& changes, DType expected) {
    Json hyper = Json::parse(read_file(dir / "expected.json"))["hyper_parameters"];
    hyper.update(changes);
    const Scratch scratch;
    std::ofstream(scratch / "hyper.json") << hyper;
    record_steps(dir, dir / "expected.safetensors", 2, StepSettings::load(scratch / "hyper.json"),
                 scratch / "out.safetensors");
    const SafetensorsFile out = SafetensorsFile::open(scratch / "out.safetensors");
    for (const char* name : {"step2.model.norm.weight", "grad.lm_head.weight",
                             "step1.model.layers.1.mlp.gate.e_score_correction_bias"})
      EXPECT_EQ(out.at(name).dtype, expected) << name << " " << changes;
    return numbers(out, "step2.lm_head.weight");
  };
  const auto wide = parameters_with(Json::object(), DType::F64);
  EXPECT_EQ(parameters_with({{"moments", "fp64"}, {"compute", "fp64"}}, DType::F64), wide);
  const auto narrow = parameters_with({{"compute", "fp32"}}, DType::F32);
  EXPECT_EQ(parameters_with({{"moments", "fp32"}, {"compute", "fp32"}}, DType::F32), narrow);
  // Moments of 2 steps move a weight by at most lr each; of 24 bits, by 2^-24 of that.
  for (const auto& [moments, bits] : {std::pair{"fp32", 24}, {"bf16", 8}}) {
    const auto rounded = parameters_with({{"moments", moments}}, DType::F64);
    double difference = 0;
    for (std::size_t i = 0; i < wide.size(); ++i)
      difference = std::max(difference, std::abs(rounded[i] - wide[i]));
    EXPECT_GT(difference, 0) << moments;
    EXPECT_LE(difference, 1e-3 * std::pow(2.0, 1 - bits)) << moments;
  }
}

std::string error_of(const Json& hyper, const char* tokens_from = nullptr, std::int64_t steps = 1) {
  const fs::path dir = fs::path(MINKE_GOLDEN_DIR) / "train-step";
  const Scratch scratch;
  std::ofstream(scratch / "hyper.json") << hyper;
  try {
    const StepSettings settings = StepSettings::load(scratch / "hyper.json");
    record_steps(dir, tokens_from ? fs::path(tokens_from) : dir / "expected.safetensors", steps,
                 settings, scratch / "out.safetensors");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

Json hyper_parameters() {
  return {{"lr", 1e-3},    {"beta1", 0.9},        {"beta2", 0.95},
          {"eps", 1e-8},   {"weight_decay", 0.1}, {"clip", 1.0},
          {"alpha", 1e-4}, {"gamma", 1e-3},       {"mtp_lambda", 0.3}};
}

TEST(StepRecord, RefusesBadSettingsByName) {
  EXPECT_EQ(error_of(hyper_parameters()), "");
  Json missing = hyper_parameters();
  missing.erase("gamma");
  EXPECT_NE(error_of(missing).find("gamma is missing"), std::string::npos);
  Json unknown = hyper_parameters();
  unknown["weight_decai"] = 1;
  EXPECT_NE(error_of(unknown).find("weight_decay"), std::string::npos);
  Json negative = hyper_parameters();
  negative["lr"] = -1;
  EXPECT_NE(error_of(negative).find("lr is -1"), std::string::npos);
  Json text = hyper_parameters();
  text["beta2"] = "0.95";
  EXPECT_NE(error_of(text).find("beta2"), std::string::npos);
  Json unknown_compute = hyper_parameters();
  unknown_compute["compute"] = "int4";
  EXPECT_NE(error_of(unknown_compute).find("compute"), std::string::npos);
  Json wide_moments = hyper_parameters();
  wide_moments.update({{"compute", "fp32"}, {"moments", "fp64"}});
  EXPECT_NE(error_of(wide_moments).find("need compute fp64"), std::string::npos);
  EXPECT_NE(error_of(Json::array()).find("object"), std::string::npos);
}

std::string error_with_tokens(DType dtype, Shape shape, std::int64_t id, std::int64_t steps = 1) {
  const Scratch scratch;
  Tensor tokens(dtype, shape);
  if (dtype == DType::I64 && tokens.size() > 0)
    static_cast<std::int64_t*>(tokens.raw())[tokens.size() - 1] = id;
  const std::vector<NamedTensorView> views{NamedTensorView::of("tokens", tokens)};
  write_safetensors(scratch / "tokens.safetensors", views);
  return error_of(hyper_parameters(), (scratch / "tokens.safetensors").c_str(), steps);
}

TEST(StepRecord, RefusesBadTokensByName) {
  EXPECT_EQ(error_with_tokens(DType::I64, {1, 1, 4}, 55), "");
  EXPECT_NE(error_with_tokens(DType::I64, {1, 1, 4}, 56).find("tokens[0, 0, 3] is 56"),
            std::string::npos);
  EXPECT_NE(error_with_tokens(DType::I64, {1, 1, 4}, -1).find("is -1"), std::string::npos);
  EXPECT_NE(error_with_tokens(DType::I32, {1, 1, 4}, 0).find("tokens"), std::string::npos);
  EXPECT_NE(error_with_tokens(DType::I64, {1, 4}, 0).find("tokens"), std::string::npos);
  EXPECT_NE(error_with_tokens(DType::I64, {1, 1, 4}, 0, 2).find("at least 2 steps"),
            std::string::npos);
  EXPECT_NE(error_with_tokens(DType::I64, {1, 1, 2}, 0).find("T at least 2"), std::string::npos);
  EXPECT_NE(error_with_tokens(DType::I64, {1, 0, 4}, 0).find("B at least 1"), std::string::npos);
}

}  // namespace
}  // namespace minke
