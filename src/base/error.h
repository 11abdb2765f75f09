// The errors that a user, a file, a peer or a request can cause. Each message is one line: what was
// found, where, what was expected, what to do. What only a bug can cause is MINKE_ASSERT.
#pragma once
#include <stdexcept>
#include <string>

namespace minke {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
struct UsageError : Error { using Error::Error; };   // command line; exit status 2
struct ConfigError : Error { using Error::Error; };  // a setting or config.json field
struct FormatError : Error { using Error::Error; };  // bytes of a file or message
struct ShapeError : Error { using Error::Error; };   // extents that do not agree
struct IoError : Error { using Error::Error; };      // the operating system said no
struct CommError : Error { using Error::Error; };    // another rank
struct Interrupted : Error { using Error::Error; };  // the user asked to stop; exit status 130

// "cannot open x.json: No such file or directory" from errno.
[[noreturn]] void throw_io_error(const std::string& what, int error_number);

[[noreturn]] void assertion_failed(const char* expression, const char* file, int line);

}  // namespace minke

// On in developer builds (sanitizers) and tests; costs nothing in release.
#if defined(NDEBUG)
#define MINKE_ASSERT(x) ((void)0)
#else
#define MINKE_ASSERT(x) ((x) ? (void)0 : ::minke::assertion_failed(#x, __FILE__, __LINE__))
#endif
