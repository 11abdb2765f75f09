#include "base/error.h"

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace minke {

void throw_io_error(const std::string& what, int error_number) {
  throw IoError(fmt::format("{}: {}", what, std::strerror(error_number)));
}

void assertion_failed(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: assertion failed: %s\n", file, line, expression);
  std::abort();
}

}  // namespace minke
