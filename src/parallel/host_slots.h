// The hosts of a job and how many ranks each may have, written as mpirun reads them: "a:2,b:2", or
// a hostfile with a line "a slots=2" for each host. Without a number a host has one slot.
#pragma once
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace minke {

struct HostSlots {
  std::string host;
  int slots = 1;
  bool operator==(const HostSlots&) const = default;
};

// ConfigError naming the entry that is not of that form, or a host that is there twice.
std::vector<HostSlots> parse_hosts(std::string_view list);
// Likewise naming the line; IoError when the file cannot be read. '#' begins a comment.
std::vector<HostSlots> read_hostfile(const std::filesystem::path& path);

int total_slots(const std::vector<HostSlots>& hosts);
std::string to_string(const std::vector<HostSlots>& hosts);  // "a:2,b:2"

}  // namespace minke
