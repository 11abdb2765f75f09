// The bytes of a file, decompressed as they come: plain, gzip (RFC 1952, also several members one
// after the other) or Zstandard (RFC 8878, several frames). Memory is some hundred KiB, and for
// Zstandard the frame's window of at most 128 MiB, whatever the file's size.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>

namespace minke {

enum class Compression { None, Gzip, Zstd };

// By the name's ending: .gz, .zst, or none.
Compression compression_of(const std::filesystem::path& path);

class ByteStream {
 public:
  virtual ~ByteStream() = default;
  // The next bytes, at least one unless the stream has ended. IoError when the system cannot read;
  // FormatError when compressed data is damaged or ends in the middle.
  virtual std::size_t read(std::span<char> out) = 0;
  // Goes on `count` bytes further; ends where the stream ends.
  virtual void skip(std::uint64_t count);
  // Bytes of the file itself that were taken, for progress.
  virtual std::uint64_t consumed() const = 0;
};

// IoError when the file cannot be opened or is no regular file.
std::unique_ptr<ByteStream> open_byte_stream(const std::filesystem::path& path,
                                             Compression compression);

}  // namespace minke
