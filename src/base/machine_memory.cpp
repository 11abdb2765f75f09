#include "base/machine_memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>

namespace minke {
namespace {

namespace fs = std::filesystem;

std::string first_line(const fs::path& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

// The number that follows spaces; 0 when there is none.
std::uint64_t number_in(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  std::uint64_t n = 0;
  std::from_chars(text.data(), text.data() + text.size(), n);
  return n;
}

// Of a file with lines "... KEY:   123 kB".
std::uint64_t kib_line(const fs::path& path, std::string_view key) {
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    const std::size_t colon = line.find(':');
    if (colon == std::string::npos) continue;
    const std::string_view before = std::string_view(line).substr(0, colon);
    if (before == key || before.ends_with(" " + std::string(key)))
      return number_in(std::string_view(line).substr(colon + 1)) * 1024;
  }
  return 0;
}

std::vector<NumaNode> read_nodes(const fs::path& directory) {
  std::vector<NumaNode> nodes;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(directory, none)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("node") || name.size() < 5 || name[4] < '0' || name[4] > '9') continue;
    nodes.push_back({.number = static_cast<int>(number_in(name.substr(4))),
                     .total_bytes = kib_line(entry.path() / "meminfo", "MemTotal"),
                     .free_bytes = kib_line(entry.path() / "meminfo", "MemFree")});
  }
  std::sort(nodes.begin(), nodes.end(),
            [](const NumaNode& a, const NumaNode& b) { return a.number < b.number; });
  return nodes;
}

// "always [madvise] never" -> "madvise".
std::string chosen_word(const std::string& line) {
  const std::size_t open = line.find('['), close = line.find(']');
  return open == std::string::npos || close < open ? "" : line.substr(open + 1, close - open - 1);
}

}  // namespace

MachineMemory read_machine_memory(const fs::path& root) {
  const fs::path meminfo = root / "proc/meminfo";
  MachineMemory m;
  m.total_bytes = kib_line(meminfo, "MemTotal");
  m.available_bytes = kib_line(meminfo, "MemAvailable");
  m.swap_bytes = kib_line(meminfo, "SwapTotal");
  m.swap_free_bytes = kib_line(meminfo, "SwapFree");
  m.nodes = read_nodes(root / "sys/devices/system/node");
  m.huge_pages = chosen_word(first_line(root / "sys/kernel/mm/transparent_hugepage/enabled"));
  // "max" or no such file: 0, no limit.
  const std::uint64_t limit = number_in(first_line(root / "sys/fs/cgroup/memory.max"));
  if (limit > 0) {
    const std::uint64_t used = number_in(first_line(root / "sys/fs/cgroup/memory.current"));
    m.total_bytes = std::min(m.total_bytes, limit);
    m.available_bytes = std::min(m.available_bytes, limit - std::min(used, limit));
  }
  return m;
}

std::string bytes_text(double bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int u = 0;
  while (bytes >= 1024 && u < 4) bytes /= 1024, ++u;
  return u == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.2f} {}", bytes, units[u]);
}

}  // namespace minke
