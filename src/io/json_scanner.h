// A strict reader of JSON text from front to back, for files whose schema is known: safetensors
// headers and shard indices. It allocates only the strings that it returns, so that a header of
// 100,000,000 bytes costs no more than its contents. FormatError gives file and byte position.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace minke {

// FormatError with a message that may hold names out of a damaged file, as a readable_line.
[[noreturn]] void throw_format_error(std::string_view message);

class JsonScanner {
 public:
  // `text` and `file` (for messages) must outlive the scanner.
  JsonScanner(std::string_view text, std::string_view file) : text_(text), file_(file) {}

  // Skips white space and takes `c` if it comes next.
  bool take(char c);
  void expect(char c);
  // A string with its escapes resolved, valid UTF-8.
  std::string string();
  // A whole number without sign, fraction or exponent; FormatError beyond 64 bits.
  std::uint64_t unsigned_integer();
  // Any value.
  void skip_value(int depth = 0);
  // Only white space is left.
  void end();

  // each(key) for every member of an object; it must consume the value.
  template <class Each>
  void object(Each each) {
    expect('{');
    if (take('}')) return;
    do {
      std::string key = string();
      expect(':');
      each(std::move(key));
    } while (take(','));
    expect('}');
  }
  // each() for every element of an array; it must consume the element.
  template <class Each>
  void array(Each each) {
    expect('[');
    if (take(']')) return;
    do each();
    while (take(','));
    expect(']');
  }

  [[noreturn]] void fail(std::string_view expected) const;

 private:
  void white_space();
  char peek();
  unsigned hex4();

  std::string_view text_;
  std::string_view file_;
  std::size_t at_ = 0;
};

}  // namespace minke
