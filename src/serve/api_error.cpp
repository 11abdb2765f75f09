#include "serve/api_error.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace minke {
namespace {

using Json = nlohmann::ordered_json;

const char* type_of(int status) {
  if (status == 401) return "authentication_error";
  if (status == 429) return "rate_limit_error";
  return status < 500 ? "invalid_request_error" : "server_error";
}

Json text_or_null(const std::string& text) {
  return text.empty() ? Json() : Json(text);
}

}  // namespace

void throw_bad_field(const std::string& field, const std::string& message) {
  throw ApiError(400, fmt::format("{}: {}", field, message), field);
}

std::string error_json(const ApiError& error) {
  const Json json = {{"error",
                      {{"message", error.what()},
                       {"type", type_of(error.status)},
                       {"param", text_or_null(error.param)},
                       {"code", text_or_null(error.code)}}}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

HttpResponse error_response(const ApiError& error) {
  HttpResponse response{.status = error.status, .body = error_json(error)};
  if (error.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  if (error.retry_after_s)
    response.headers.emplace_back("Retry-After", std::to_string(*error.retry_after_s));
  return response;
}

}  // namespace minke
