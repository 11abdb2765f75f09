// The NUMA nodes of the machine as this process may use them (hwloc): which of its CPUs are near
// which memory, and how a thread is kept near it.
//
// HWLOC_XMLFILE and HWLOC_SYNTHETIC give another machine, as for every program with hwloc. Threads
// and memory then stay where they are.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

struct hwloc_topology;

namespace minke {

using Index = std::int64_t;

struct TopologyNode {
  int number = 0;         // as the operating system counts
  std::vector<int> cpus;  // that this process may use; ascending
};

class Topology {
 public:
  // This machine. One node, whatever there is, where hwloc cannot say or where some CPUs that the
  // process may use are near no memory that it may use.
  static Topology of_machine();
  // A machine by hwloc's description ("package:2 pu:4": two packages with a node and four CPUs
  // each), of which only `usable` CPUs may be used (empty: all). UsageError when hwloc does not
  // understand it.
  static Topology synthetic(const std::string& description, const std::vector<int>& usable = {});

  // At least one. Nodes without a usable CPU are left out.
  const std::vector<TopologyNode>& nodes() const { return nodes_; }
  Index n_nodes() const { return static_cast<Index>(nodes_.size()); }

  // Nodes are given by their places in nodes().
  // Keeps the calling thread, and threads that it starts, on the node's CPUs. False, and nothing
  // done, where the system refuses or this is another machine.
  bool bind_this_thread(Index node) const;
  // Pages of [memory, memory + bytes) become real on the node while it has memory left, whoever
  // writes them; real ones move. `memory` is aligned to a page. Where the system forbids that
  // choice (containers do), a thread on the node makes them real at once. False as above.
  bool place_memory(void* memory, std::size_t bytes, Index node) const;
  // Of the CPU that the calling thread runs on; 0 on another machine.
  Index node_of_this_thread() const;

 private:
  struct Free {
    void operator()(hwloc_topology* handle) const;
  };
  using Handle = std::unique_ptr<hwloc_topology, Free>;
  Topology(Handle handle, const std::vector<int>& usable);

  Handle handle_;  // null: nothing can be bound
  std::vector<TopologyNode> nodes_;
  std::vector<Index> node_of_cpu_;
};

// "0-3,8": CPUs that ascend.
std::string cpu_list_text(const std::vector<int>& cpus);

}  // namespace minke
