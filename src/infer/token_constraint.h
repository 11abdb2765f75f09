// What a generated text may look like, token by token: JSON, a schema, a tool call. The engine asks
// which tokens may come next before it samples, so that nothing is ever generated twice.
#pragma once
#include <cstdint>
#include <memory>
#include <span>

namespace minke {

class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;
  // logits [V]: minus infinity for every token that may not come next. At least one stays; when the
  // text is complete that is a stop id.
  virtual void mask(std::span<float> logits) = 0;
  // `id` was chosen; it was not masked.
  virtual void accept(std::int32_t id) = 0;
  // An independent copy of the present state (another choice, a draft to be checked).
  virtual std::unique_ptr<TokenConstraint> clone() const = 0;
};

}  // namespace minke
