// For tests: while it lives, two threads and a machine of two nodes with a CPU each. Nothing is
// bound; the caller's home is 0.
#pragma once
#include "base/threads.h"

namespace minke {

struct TwoNodes {
  TwoNodes() {
    set_threads(2);
    set_topology(Topology::synthetic("package:2 [numa] pu:1"));
  }
  ~TwoNodes() {
    set_topology(Topology::of_machine());
    set_threads(available_cores());
  }
  TwoNodes(const TwoNodes&) = delete;
  TwoNodes& operator=(const TwoNodes&) = delete;
};

}  // namespace minke
