// Which function answers a path. /v1 and no prefix name the same routes; /beta has them too, with
// prefix completion and fill-in-the-middle.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace minke {

enum class Route : std::uint8_t {
  Health,
  Metrics,
  Models,
  Model,
  Chat,
  Completions,
  Tokenize,
  Detokenize,
  Page,
};

struct RouteMatch {
  Route route;
  bool beta = false;
  std::string argument;  // the model's id, the page's file
};

// None: 404.
std::optional<RouteMatch> find_route(std::string_view path);
// "GET" or "POST": the one method of a route.
std::string_view method_of(Route route);
// For metrics and the log: the route's first path.
std::string_view name_of(Route route);
// The web chat and /health hold nothing that a key guards.
bool needs_key(Route route);

}  // namespace minke
