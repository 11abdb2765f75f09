#include "plan/cluster.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"

namespace minke {
namespace {

std::string error_of(const std::string& json) {
  const auto path =
      std::filesystem::temp_directory_path() /
      ("plan-cluster-" +
       std::string(testing::UnitTest::GetInstance()->current_test_info()->name()) + ".json");
  std::ofstream(path) << json;
  std::string message;
  try {
    cluster(path.string());
  } catch (const Error& error) {
    message = error.what();
  }
  std::filesystem::remove(path);
  return message;
}

const char* const kWhole = R"({"devices": 16, "devices_per_node": 8, "peak_bf16_flops_per_s": 1e15,
  "memory_bytes": 1e11, "memory_bytes_per_s": 3e12, "link_inside_bytes_per_s": 4e11,
  "link_between_bytes_per_s": 5e10})";

TEST(Cluster, PresetsAreWhole) {
  for (const std::string& name : cluster_names()) {
    const Cluster c = cluster_preset(name);
    EXPECT_NO_THROW(check_cluster(c, name));
    EXPECT_FALSE(c.source.empty()) << name;
  }
  EXPECT_EQ(cluster_preset("h800x2048").devices, 2048);
  EXPECT_EQ(cluster_preset("h800").link_inside_bytes_per_s, 160e9);
}

TEST(Cluster, NamesTakeANumberOfDevices) {
  EXPECT_EQ(cluster_preset("h100x16384").nodes(), 2048);
  EXPECT_EQ(cluster_preset("h200x4").devices_per_node, 4);
  EXPECT_THROW(cluster_preset("h100x9"), ConfigError);
  EXPECT_THROW(cluster_preset("h100x"), UsageError);
  EXPECT_THROW(cluster_preset("h100x99999999"), ConfigError);
}

TEST(Cluster, FormatErrorsNameTheField) {
  EXPECT_EQ(error_of(kWhole), "");
  EXPECT_NE(error_of(R"({"price_per_device_hour": -1})").find("price_per_device_hour is -1"),
            std::string::npos);
  EXPECT_NE(error_of(R"({"memory_byte": 1})").find("did you mean 'memory_bytes'"),
            std::string::npos);
  EXPECT_NE(error_of(R"({"devices": 16})").find("devices_per_node is missing"), std::string::npos);
  EXPECT_NE(error_of("{\"devices\": ").find("not valid JSON"), std::string::npos);
  std::string text = kWhole;
  text.replace(text.find("16"), 2, "15");
  EXPECT_NE(error_of(text).find("the nearest is 16"), std::string::npos);
}

TEST(Cluster, WithoutFp8TheBf16PeakCounts) {
  const Cluster c = cluster_preset("cpu");
  EXPECT_EQ(c.peak_flops_per_s(true), c.peak_bf16_flops_per_s);
}

}  // namespace
}  // namespace minke
