#include "plan/cluster.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "base/error.h"

namespace minke {
namespace {

constexpr Index kMostDevices = Index{1} << 24;

// arXiv 2407.21783, section 3.3.4: 419 unexpected interruptions in 54 days on 16384 H100.
constexpr double kDeviceMtbfHours = 16384.0 * 54 * 24 / 419;

// NVIDIA's data sheets give NVLink as the sum of both directions; 80 % of one direction arrives:
// arXiv 2412.19437 measures 160 of the H800's 200 GB/s, and the same share is assumed of the
// others.
constexpr double nvlink(double both_directions) {
  return both_directions / 2 * 0.8;
}

Cluster hopper(const char* name) {
  Cluster c;
  c.name = name;
  c.devices = 8;
  c.devices_per_node = 8;
  c.peak_bf16_flops_per_s = 989.4e12;  // NVIDIA H100 SXM data sheet, without sparsity
  c.peak_fp8_flops_per_s = 1978.9e12;
  c.memory_bytes = 80e9;
  c.memory_bytes_per_s = 3.35e12;
  c.link_inside_bytes_per_s = nvlink(900e9);
  c.link_between_bytes_per_s = 50e9;  // one 400 Gbit/s adapter a device
  c.price_per_device_hour = 2;
  c.device_mtbf_hours = kDeviceMtbfHours;
  c.compute_units = 132;
  c.communication_units = 20;
  return c;
}

Cluster h800() {
  Cluster c = hopper("h800");
  c.source =
      "NVIDIA H100/H800 SXM data sheet (dense); links, units for communication and price of "
      "arXiv 2412.19437, sections 1, 3.1, 3.2.2; failures of arXiv 2407.21783";
  c.devices = 2048;
  c.link_inside_bytes_per_s = nvlink(400e9);
  return c;
}

Cluster h100() {
  Cluster c = hopper("h100");
  c.source =
      "NVIDIA H100 SXM data sheet (dense); assumed: 80 % of NVLink arrives, 2 USD an hour, 20 "
      "units for communication; failures of arXiv 2407.21783";
  return c;
}

Cluster h200() {
  Cluster c = hopper("h200");
  c.source =
      "NVIDIA H200 SXM data sheet (dense); assumed: 80 % of NVLink arrives, 2 USD an hour, 20 "
      "units for communication, failures as H100";
  c.memory_bytes = 141e9;
  c.memory_bytes_per_s = 4.8e12;
  return c;
}

Cluster b200() {
  Cluster c = hopper("b200");
  c.source =
      "NVIDIA DGX B200 data sheet, an eighth of it (dense); assumed: 80 % of NVLink arrives, 4 USD "
      "an hour, 20 units for communication, failures as H100";
  c.peak_bf16_flops_per_s = 2.25e15;
  c.peak_fp8_flops_per_s = 4.5e15;
  c.memory_bytes = 180e9;
  c.memory_bytes_per_s = 8e12;
  c.link_inside_bytes_per_s = nvlink(1800e9);
  c.compute_units = 148;
  return c;
}

Cluster cpu() {
  Cluster c;
  c.name = "cpu";
  c.source =
      "Intel Xeon Platinum 8480+: 56 cores x 1024 BF16 FLOP a cycle (AMX) x 2.0 GHz base, 8 "
      "channels of DDR5-4800; a device is a socket; assumed: 512 GB a socket, 60 GB/s between "
      "sockets, 100 Gbit/s a node, 1 USD an hour";
  c.devices = 2;
  c.devices_per_node = 2;
  c.peak_bf16_flops_per_s = 56 * 1024 * 2.0e9;
  c.memory_bytes = 512e9;
  c.memory_bytes_per_s = 8 * 4800e6 * 8;
  c.link_inside_bytes_per_s = 60e9;
  c.link_between_bytes_per_s = 12.5e9;
  c.price_per_device_hour = 1;
  c.compute_units = 56;
  return c;
}

struct Preset {
  const char* name;
  Cluster (*make)();
};
constexpr Preset kPresets[] = {
    {"h800", h800}, {"h100", h100}, {"h200", h200}, {"b200", b200}, {"cpu", cpu}};

// The N of NAMExN, 0 where there is none.
Index devices_in_name(const std::string& name, std::size_t cross) {
  Index n = 0;
  const char* end = name.data() + name.size();
  const auto [last, error] = std::from_chars(name.data() + cross + 1, end, n);
  return error == std::errc{} && last == end ? n : 0;
}

}  // namespace

const std::vector<std::string>& cluster_names() {
  static const std::vector<std::string> names = {"h800x2048", "h800", "h100",
                                                 "h200",      "b200", "cpu"};
  return names;
}

Cluster cluster_preset(const std::string& name) {
  const std::size_t cross = name.rfind('x');
  const Index n = cross == std::string::npos ? 0 : devices_in_name(name, cross);
  const std::string kind = n > 0 ? name.substr(0, cross) : name;
  for (const Preset& preset : kPresets) {
    if (kind != preset.name) continue;
    Cluster c = preset.make();
    if (n > 0) c.devices = n;
    if (c.devices < c.devices_per_node) c.devices_per_node = c.devices;
    c.name = fmt::format("{}x{}", preset.name, c.devices);
    check_cluster(c, "--cluster " + name);
    return c;
  }
  const std::string near = nearest_name(name, cluster_names());
  throw UsageError(
      fmt::format("--cluster {}: neither a .json file nor a known cluster{}; known: "
                  "{}, each also as NAMExDEVICES",
                  name, near.empty() ? "" : "; did you mean '" + near + "'?",
                  fmt::join(cluster_names(), ", ")));
}

Cluster cluster_from_file(const std::string& path) {
  Cluster c;
  options_from_file(OptionList(c), path);
  if (c.name.empty()) c.name = path;
  check_cluster(c, path);
  return c;
}

Cluster cluster(const std::string& name_or_file) {
  return name_or_file.ends_with(".json") ? cluster_from_file(name_or_file)
                                         : cluster_preset(name_or_file);
}

void check_cluster(const Cluster& c, const std::string& where) {
  const auto given = [&](double value, const char* key) {
    if (!(value > 0))
      throw ConfigError(fmt::format("{}: {} is missing; expected a number above 0", where, key));
  };
  given(static_cast<double>(c.devices), "devices");
  given(static_cast<double>(c.devices_per_node), "devices_per_node");
  given(c.peak_bf16_flops_per_s, "peak_bf16_flops_per_s");
  given(c.memory_bytes, "memory_bytes");
  given(c.memory_bytes_per_s, "memory_bytes_per_s");
  given(c.link_inside_bytes_per_s, "link_inside_bytes_per_s");
  given(c.link_between_bytes_per_s, "link_between_bytes_per_s");
  if (c.devices > kMostDevices)
    throw ConfigError(
        fmt::format("{}: devices is {}, but must be at most {}", where, c.devices, kMostDevices));
  if (c.devices % c.devices_per_node != 0)
    throw ConfigError(fmt::format(
        "{}: devices is {}, but must be a multiple of devices_per_node, {}; the nearest is {}",
        where, c.devices, c.devices_per_node,
        std::max(c.devices_per_node,
                 (c.devices + c.devices_per_node / 2) / c.devices_per_node * c.devices_per_node)));
  if (c.communication_units >= c.compute_units)
    throw ConfigError(
        fmt::format("{}: communication_units is {}, but must be below compute_units, "
                    "{}",
                    where, c.communication_units, c.compute_units));
}

}  // namespace minke
