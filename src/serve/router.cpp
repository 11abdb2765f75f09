#include "serve/router.h"

#include "serve/web_page.h"

namespace minke {
namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') return (c | 0x20) - 'a' + 10;
  return -1;
}

// %41 -> A; what is no such code stays as it is.
std::string decode_percent(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const int high = i + 2 < text.size() ? hex_digit(text[i + 1]) : -1;
    const int low = i + 2 < text.size() ? hex_digit(text[i + 2]) : -1;
    if (text[i] == '%' && high >= 0 && low >= 0) {
      out += static_cast<char>(high * 16 + low);
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::optional<RouteMatch> find_api_route(std::string_view path, bool beta) {
  constexpr std::string_view kModel = "/models/";
  if (path == "/chat/completions") return RouteMatch{Route::Chat, beta, ""};
  if (path == "/completions") return RouteMatch{Route::Completions, beta, ""};
  if (path == "/models") return RouteMatch{Route::Models, beta, ""};
  if (path.starts_with(kModel) && path.size() > kModel.size())
    return RouteMatch{Route::Model, beta, decode_percent(path.substr(kModel.size()))};
  return std::nullopt;
}

}  // namespace

std::optional<RouteMatch> find_route(std::string_view path) {
  if (path == "/health") return RouteMatch{Route::Health, false, ""};
  if (path == "/metrics") return RouteMatch{Route::Metrics, false, ""};
  if (path == "/tokenize") return RouteMatch{Route::Tokenize, false, ""};
  if (path == "/detokenize") return RouteMatch{Route::Detokenize, false, ""};
  if (find_web_file(path)) return RouteMatch{Route::Page, false, std::string(path)};
  if (path.starts_with("/v1/")) return find_api_route(path.substr(3), false);
  if (path.starts_with("/beta/")) return find_api_route(path.substr(5), true);
  return find_api_route(path, false);
}

std::string_view method_of(Route route) {
  switch (route) {
    case Route::Chat:
    case Route::Completions:
    case Route::Tokenize:
    case Route::Detokenize:
      return "POST";
    default:
      return "GET";
  }
}

std::string_view name_of(Route route) {
  switch (route) {
    case Route::Health:
      return "/health";
    case Route::Metrics:
      return "/metrics";
    case Route::Models:
      return "/v1/models";
    case Route::Model:
      return "/v1/models/:id";  // without braces: simple readers of metrics end labels there
    case Route::Chat:
      return "/v1/chat/completions";
    case Route::Completions:
      return "/v1/completions";
    case Route::Tokenize:
      return "/tokenize";
    case Route::Detokenize:
      return "/detokenize";
    case Route::Page:
      return "/";
  }
  return "other";
}

bool needs_key(Route route) {
  return route != Route::Health && route != Route::Page;
}

}  // namespace minke
