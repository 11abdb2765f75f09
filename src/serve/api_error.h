// What a client is told when a request cannot be served: an HTTP status and one JSON object.
//   {"error": {"message", "type", "param": null or "field", "code": null or "..."}}
#pragma once
#include <optional>
#include <string>

#include "base/error.h"
#include "serve/http_message.h"

namespace minke {

struct ApiError : Error {
  ApiError(int status, const std::string& message, std::string param = "", std::string code = "")
      : Error(message), status(status), param(std::move(param)), code(std::move(code)) {}
  int status;
  std::string param, code;  // "" is null
  std::optional<int> retry_after_s = {};
};

// 400 naming the field, as "messages[2].content".
[[noreturn]] void throw_bad_field(const std::string& field, const std::string& message);

// The object's text. The type follows from the status.
std::string error_json(const ApiError& error);
HttpResponse error_response(const ApiError& error);

}  // namespace minke
