// The files of the web chat, src/serve/web/, which are part of the binary (cmake/embed.cmake).
#pragma once
#include <optional>
#include <span>
#include <string_view>

namespace minke {

struct WebFile {
  std::string_view path;  // "/" is index.html
  std::string_view content_type;
  std::string_view etag;    // quoted
  std::string_view policy;  // Content-Security-Policy
  std::string_view bytes;
};

// The generated list.
std::span<const WebFile> web_files();

inline const WebFile* find_web_file(std::string_view path) {
  for (const WebFile& file : web_files())
    if (file.path == path) return &file;
  return nullptr;
}

}  // namespace minke
