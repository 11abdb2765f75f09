// What is counted and logged of a request: no prompt, no answer, no key.
#pragma once
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "serve/openai_response.h"

namespace minke {

struct RequestRecord {
  using Clock = std::chrono::steady_clock;
  Clock::time_point begin = Clock::now();
  std::string id, method, route;  // route: as in the table, or "other"
  int status = 0;                 // 499: the client went before the end
  bool stream = false;
  std::size_t body_bytes = 0;
  AnswerUsage usage = {};
  std::optional<double> first_token_s;       // since begin
  std::optional<double> per_output_token_s;  // mean of those after the first
};

}  // namespace minke
