// How many bytes of request bodies the server holds at once, whoever sent them: a limit of a single
// body does not bound what thousands of clients can send together.
#pragma once
#include <atomic>
#include <cstddef>
#include <memory>

namespace minke {

class BodyBudget {
 public:
  explicit BodyBudget(std::size_t bytes) : bytes_(bytes) {}

  // What one body takes; given back with the object, from any thread.
  class Share {
   public:
    explicit Share(std::shared_ptr<BodyBudget> budget) : budget_(std::move(budget)) {}
    ~Share() { budget_->used_ -= taken_; }
    Share(const Share&) = delete;
    Share& operator=(const Share&) = delete;
    // False, and nothing taken, when that is more than is left.
    bool take(std::size_t n) {
      if (budget_->used_.fetch_add(n) + n > budget_->bytes_) {
        budget_->used_ -= n;
        return false;
      }
      taken_ += n;
      return true;
    }

   private:
    const std::shared_ptr<BodyBudget> budget_;
    std::size_t taken_ = 0;
  };

 private:
  const std::size_t bytes_;
  std::atomic<std::size_t> used_{0};
};

}  // namespace minke
