#include "parallel/host_slots.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <sstream>

#include "base/error.h"
#include "base/files.h"

namespace minke {
namespace {

// 1 to 65536, or 0.
int parse_slots(std::string_view text) {
  int slots = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), slots);
  return error == std::errc() && end == text.data() + text.size() && slots > 0 && slots <= 65536
             ? slots
             : 0;
}

void add(std::vector<HostSlots>& hosts, const std::string& where, std::string_view host,
         std::string_view slots) {
  const int n = slots.empty() ? 1 : parse_slots(slots);
  if (host.empty() || n == 0)
    throw ConfigError(fmt::format(
        "{}: a host and, if it has several ranks, their number (1 to 65536) is expected", where));
  const auto same = [&](const HostSlots& other) { return other.host == host; };
  if (std::any_of(hosts.begin(), hosts.end(), same))
    throw ConfigError(
        fmt::format("{}: {} is there twice; give one entry with all of its slots", where, host));
  hosts.push_back({std::string(host), n});
}

}  // namespace

std::vector<HostSlots> parse_hosts(std::string_view list) {
  std::vector<HostSlots> hosts;
  for (std::size_t begin = 0; begin <= list.size();) {
    const std::size_t end = std::min(list.find(',', begin), list.size());
    const std::string_view entry = list.substr(begin, end - begin);
    const std::size_t colon = std::min(entry.rfind(':'), entry.size());
    const bool open = colon + 1 == entry.size();  // "a:"
    add(hosts, fmt::format("hosts '{}': '{}'", list, entry),
        open ? std::string_view() : entry.substr(0, colon),
        colon < entry.size() ? entry.substr(colon + 1) : std::string_view());
    begin = end + 1;
  }
  return hosts;
}

std::vector<HostSlots> read_hostfile(const std::filesystem::path& path) {
  std::vector<HostSlots> hosts;
  std::istringstream text(read_file(path, std::size_t{1} << 24));
  std::string line;
  for (int number = 1; std::getline(text, line); ++number) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::string host, slots, more;
    if (!(words >> host)) continue;
    words >> slots >> more;
    const std::string where = fmt::format("{}:{}: '{}'", path.string(), number, line);
    constexpr std::string_view kSlots = "slots=";
    if (!more.empty() || (!slots.empty() && (!slots.starts_with(kSlots) || slots == kSlots)))
      throw ConfigError(where + ": must be 'HOST' or 'HOST slots=N'");
    add(hosts, where, host,
        slots.empty() ? std::string_view() : std::string_view(slots).substr(kSlots.size()));
  }
  if (hosts.empty()) throw ConfigError(path.string() + ": names no host");
  return hosts;
}

int total_slots(const std::vector<HostSlots>& hosts) {
  int total = 0;
  for (const HostSlots& host : hosts) total += host.slots;
  return total;
}

std::string to_string(const std::vector<HostSlots>& hosts) {
  std::string text;
  for (const HostSlots& host : hosts)
    text += fmt::format("{}{}:{}", text.empty() ? "" : ",", host.host, host.slots);
  return text;
}

}  // namespace minke
