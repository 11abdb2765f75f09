// What the operating system says about memory: how much there is and is free, swap, NUMA nodes, and
// whether huge pages can be had. What it does not say is 0 or empty.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace minke {

struct NumaNode {  // its memory; base/topology.h says which CPUs are near
  int number = 0;
  std::uint64_t total_bytes = 0, free_bytes = 0;
};

struct MachineMemory {
  std::uint64_t total_bytes = 0;
  std::uint64_t available_bytes = 0;  // without swapping; a control group's limit counted
  std::uint64_t swap_bytes = 0, swap_free_bytes = 0;
  std::vector<NumaNode> nodes = {};
  std::string huge_pages = {};  // "always", "madvise" (given when asked for) or "never"
};

// `root` is where /proc and /sys are; tests have their own.
MachineMemory read_machine_memory(const std::filesystem::path& root = "/");

// "512 B", "1.50 GiB".
std::string bytes_text(double bytes);

}  // namespace minke
