#include "serve/metrics.h"

#include <fmt/format.h>

#include <algorithm>

namespace minke {
namespace {

std::string head(const std::string& name, const char* type, const std::string& help) {
  return fmt::format("# HELP {0} {1}\n# TYPE {0} {2}\n", name, help, type);
}

template <class Value>
std::string single(const std::string& name, const char* type, const std::string& help,
                   Value value) {
  return head(name, type, help) + fmt::format("{} {}\n", name, value);
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
  return out;
}

std::string engine_text(const BatchStatistics& s) {
  const auto gauge = [](const char* name, const char* help, auto value) {
    return single(std::string("minke_") + name, "gauge", help, value);
  };
  const auto counter = [](const char* name, const char* help, auto value) {
    return single(std::string("minke_") + name, "counter", help, value);
  };
  return gauge("requests_running", "Requests that are being generated.", s.running) +
         gauge("requests_waiting", "Requests in the queue.", s.waiting) +
         gauge("cache_pages", "Pages of the latent cache.", s.pages_total) +
         gauge("cache_pages_used", "Pages that sequences hold.", s.pages_used) +
         gauge("cache_pages_cached", "Pages kept for prefixes.", s.pages_cached) +
         counter("prompt_tokens_total", "Prompt tokens of requests.", s.prompt_tokens) +
         counter("prompt_cached_tokens_total", "Prompt tokens found in the prefix cache.",
                 s.cached_prompt_tokens) +
         counter("generation_tokens_total", "Generated tokens.", s.generated_tokens) +
         counter("preemptions_total", "Sequences put back into the queue for lack of pages.",
                 s.preemptions) +
         counter("engine_steps_total", "Steps of the engine.", s.steps) +
         counter("draft_tokens_total", "Drafted tokens.", s.drafted) +
         counter("draft_accepted_tokens_total", "Drafted tokens that were accepted.", s.accepted) +
         gauge("drafting", "1 while tokens are drafted.", s.drafting ? 1 : 0) +
         gauge("draft_gain", "Speed with drafts over speed without; 0: not known.", s.draft_gain);
}

}  // namespace

Histogram::Histogram(std::vector<double> bounds)
    : bounds_(std::move(bounds)), counts_(bounds_.size() + 1) {}

void Histogram::add(double value) {
  const auto at = std::lower_bound(bounds_.begin(), bounds_.end(), value);
  ++counts_[static_cast<std::size_t>(at - bounds_.begin())];
  ++count_;
  sum_ += value;
}

std::string Histogram::text(const std::string& name, const std::string& help) const {
  std::string out = head(name, "histogram", help);
  std::uint64_t below = 0;
  for (std::size_t i = 0; i < bounds_.size(); ++i) {
    below += counts_[i];
    out += fmt::format("{}_bucket{{le=\"{}\"}} {}\n", name, bounds_[i], below);
  }
  return out + fmt::format("{0}_bucket{{le=\"+Inf\"}} {1}\n{0}_sum {2}\n{0}_count {1}\n", name,
                           count_, sum_);
}

Metrics::Metrics(std::vector<std::pair<std::string, std::string>> info)
    : info_(std::move(info)),
      first_token_({0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300}),
      per_token_({0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5}),
      duration_({0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800}) {}

void Metrics::record(const RequestRecord& request) {
  const std::chrono::duration<double> took = RequestRecord::Clock::now() - request.begin;
  std::lock_guard lock(mutex_);
  ++requests_[{request.route, request.status}];
  duration_.add(took.count());
  if (request.first_token_s) first_token_.add(*request.first_token_s);
  if (request.per_output_token_s) per_token_.add(*request.per_output_token_s);
}

std::string Metrics::text(const BatchStatistics& engine) const {
  std::lock_guard lock(mutex_);
  std::string labels = fmt::format("version=\"{}\"", MINKE_VERSION);
  for (const auto& [name, value] : info_) labels += fmt::format(",{}=\"{}\"", name, escaped(value));
  std::string out = head("minke_build_info", "gauge", "What runs and how it computes.") +
                    fmt::format("minke_build_info{{{}}} 1\n", labels);
  if (!requests_.empty()) out += head("minke_http_requests_total", "counter", "Answered requests.");
  for (const auto& [key, n] : requests_)
    out += fmt::format("minke_http_requests_total{{route=\"{}\",status=\"{}\"}} {}\n", key.first,
                       key.second, n);
  out += engine_text(engine);
  out += first_token_.text("minke_time_to_first_token_seconds",
                           "From the request's arrival to its first token.");
  out += per_token_.text("minke_time_per_output_token_seconds",
                         "Mean time between tokens of an answer.");
  return out + duration_.text("minke_request_duration_seconds",
                              "From the request's arrival to the end of its answer.");
}

}  // namespace minke
