#include "base/topology.h"

#include <fmt/format.h>
#include <hwloc.h>
#include <sched.h>

#include <atomic>
#include <thread>
#include <utility>

#include "base/error.h"

namespace minke {
namespace {

struct FreeBitmap {
  void operator()(hwloc_bitmap_s* bits) const { hwloc_bitmap_free(bits); }
};
using Bitmap = std::unique_ptr<hwloc_bitmap_s, FreeBitmap>;

Bitmap bitmap_of(const std::vector<int>& numbers) {
  Bitmap bits(hwloc_bitmap_alloc());
  for (const int number : numbers) hwloc_bitmap_set(bits.get(), static_cast<unsigned>(number));
  return bits;
}

std::vector<int> numbers_of(hwloc_const_bitmap_t bits) {
  std::vector<int> numbers;
  for (int i = hwloc_bitmap_first(bits); i >= 0; i = hwloc_bitmap_next(bits, i))
    numbers.push_back(i);
  return numbers;
}

std::vector<int> cpus_of_this_thread() {
  cpu_set_t set;
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof set, &set) == 0)
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
      if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  return cpus;
}

// The nodes' CPUs among `usable`. A CPU that is near several memories belongs to the first.
std::vector<TopologyNode> nodes_of(hwloc_topology_t handle, const std::vector<int>& usable) {
  const Bitmap left = bitmap_of(usable), own(hwloc_bitmap_alloc());
  std::vector<TopologyNode> nodes;
  for (hwloc_obj_t node = nullptr;
       (node = hwloc_get_next_obj_by_type(handle, HWLOC_OBJ_NUMANODE, node));) {
    hwloc_bitmap_and(own.get(), node->cpuset, left.get());
    hwloc_bitmap_andnot(left.get(), left.get(), own.get());
    if (!hwloc_bitmap_iszero(own.get()))
      nodes.push_back({static_cast<int>(node->os_index), numbers_of(own.get())});
  }
  if (!hwloc_bitmap_iszero(left.get())) nodes.clear();  // some CPUs are near no node
  return nodes;
}

hwloc_topology_t begun() {
  hwloc_topology_t handle = nullptr;
  if (hwloc_topology_init(&handle) != 0) return nullptr;
  hwloc_topology_set_cache_types_filter(handle, HWLOC_TYPE_FILTER_KEEP_NONE);
  hwloc_topology_set_flags(handle, HWLOC_TOPOLOGY_FLAG_DONT_CHANGE_BINDING);
  return handle;
}

// What they hold stays.
void write_pages(unsigned char* memory, std::size_t bytes) {
  constexpr std::size_t kPage = 4096;
  for (std::size_t at = 0; at < bytes; at += kPage)
    std::atomic_ref<unsigned char>(memory[at]).fetch_or(0, std::memory_order_relaxed);
}

bool is_this_machine(hwloc_topology_t handle) {
  return handle && hwloc_topology_is_thissystem(handle);
}

}  // namespace

void Topology::Free::operator()(hwloc_topology* handle) const {
  hwloc_topology_destroy(handle);
}

Topology::Topology(Handle handle, const std::vector<int>& usable) : handle_(std::move(handle)) {
  if (handle_) nodes_ = nodes_of(handle_.get(), usable);
  if (nodes_.empty()) nodes_ = {{0, usable}};
  for (Index node = 0; node < n_nodes(); ++node)
    for (const int cpu : nodes_[static_cast<std::size_t>(node)].cpus) {
      const auto place = static_cast<std::size_t>(cpu);
      if (place >= node_of_cpu_.size()) node_of_cpu_.resize(place + 1, 0);
      node_of_cpu_[place] = node;
    }
}

Topology Topology::of_machine() {
  Handle handle(begun());
  if (handle && hwloc_topology_load(handle.get()) != 0) handle.reset();
  if (!handle || is_this_machine(handle.get()))
    return Topology(std::move(handle), cpus_of_this_thread());
  const std::vector<int> all = numbers_of(hwloc_topology_get_topology_cpuset(handle.get()));
  return Topology(std::move(handle), all);
}

Topology Topology::synthetic(const std::string& description, const std::vector<int>& usable) {
  Handle handle(begun());
  if (!handle || hwloc_topology_set_synthetic(handle.get(), description.c_str()) != 0 ||
      hwloc_topology_load(handle.get()) != 0)
    throw UsageError(fmt::format("hwloc knows no machine \"{}\"", description));
  const std::vector<int> all = numbers_of(hwloc_topology_get_topology_cpuset(handle.get()));
  return Topology(std::move(handle), usable.empty() ? all : usable);
}

bool Topology::bind_this_thread(Index node) const {
  if (!is_this_machine(handle_.get())) return false;
  const Bitmap cpus = bitmap_of(nodes_[static_cast<std::size_t>(node)].cpus);
  return hwloc_set_cpubind(handle_.get(), cpus.get(), HWLOC_CPUBIND_THREAD) == 0;
}

bool Topology::place_memory(void* memory, std::size_t bytes, Index node) const {
  if (!is_this_machine(handle_.get())) return false;
  const Bitmap where = bitmap_of({nodes_[static_cast<std::size_t>(node)].number});
  if (hwloc_set_area_membind(handle_.get(), memory, bytes, where.get(), HWLOC_MEMBIND_BIND,
                             HWLOC_MEMBIND_BYNODESET | HWLOC_MEMBIND_MIGRATE) == 0)
    return true;
  // A page then lies where its first writer runs.
  bool bound = false;
  std::thread([&] {
    bound = bind_this_thread(node);
    if (bound) write_pages(static_cast<unsigned char*>(memory), bytes);
  }).join();
  return bound;
}

Index Topology::node_of_this_thread() const {
  const auto cpu = static_cast<std::size_t>(sched_getcpu());
  return is_this_machine(handle_.get()) && cpu < node_of_cpu_.size() ? node_of_cpu_[cpu] : 0;
}

std::string cpu_list_text(const std::vector<int>& cpus) {
  std::string text;
  for (std::size_t first = 0, last; first < cpus.size(); first = last + 1) {
    last = first;
    while (last + 1 < cpus.size() && cpus[last + 1] == cpus[last] + 1) ++last;
    if (!text.empty()) text += ',';
    text += std::to_string(cpus[first]);
    if (last > first) text += fmt::format("-{}", cpus[last]);
  }
  return text;
}

}  // namespace minke
