// What generates. The server knows the engine by this alone, so that it can be tested with one that
// answers as a test wants.
#pragma once
#include <memory>

#include "infer/batch_engine.h"

namespace minke {

// Every function as in BatchEngine; submit as submit_together.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::vector<RequestId> submit(std::vector<Submission> submissions) = 0;
  virtual void cancel(RequestId id) = 0;
  virtual BatchStatistics statistics() const = 0;
  virtual bool drain(double timeout_s) = 0;
};

class EngineBackend : public Backend {
 public:
  // The engine must outlive it.
  explicit EngineBackend(BatchEngine& engine) : engine_(engine) {}
  std::vector<RequestId> submit(std::vector<Submission> submissions) override {
    return engine_.submit_together(std::move(submissions));
  }
  void cancel(RequestId id) override { engine_.cancel(id); }
  BatchStatistics statistics() const override { return engine_.statistics(); }
  bool drain(double timeout_s) override { return engine_.drain(timeout_s); }

 private:
  BatchEngine& engine_;
};

}  // namespace minke
