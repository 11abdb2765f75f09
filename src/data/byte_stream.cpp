#include "data/byte_stream.h"

#include <fmt/format.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <array>
#include <vector>

#include "base/error.h"
#include "base/files.h"

namespace minke {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t kPiece = std::size_t{1} << 17;

class PlainStream : public ByteStream {
 public:
  explicit PlainStream(const fs::path& path) : file_(path) {}

  std::size_t read(std::span<char> out) override {
    const std::uint64_t left = file_.size() - std::min(at_, file_.size());
    const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(out.size(), left));
    file_.pread_exact(at_, std::as_writable_bytes(out.first(n)));
    at_ += n;
    return n;
  }
  void skip(std::uint64_t count) override { at_ += count; }
  std::uint64_t consumed() const override { return std::min(at_, file_.size()); }

 private:
  FileReader file_;
  std::uint64_t at_ = 0;
};

// What both decompressors share: pieces of the file, refilled when they are used up.
class CompressedStream : public ByteStream {
 public:
  explicit CompressedStream(const fs::path& path) : file_(path), path_(path), input_(kPiece) {}
  std::uint64_t consumed() const override { return file_.consumed() - input_left(); }

 protected:
  virtual std::size_t input_left() const = 0;
  std::span<char> refill() { return std::span(input_).first(file_.read(input_)); }

  [[noreturn]] void fail_truncated() const {
    throw FormatError(
        fmt::format("{}: the file ends after {} bytes, in the middle of its compressed data",
                    path_.string(), consumed()));
  }
  [[noreturn]] void fail_damaged(const char* why) const {
    throw FormatError(fmt::format("{}: damaged compressed data near byte {} ({})", path_.string(),
                                  consumed(), why));
  }

 private:
  PlainStream file_;
  fs::path path_;
  std::vector<char> input_;
};

class GzipStream : public CompressedStream {
 public:
  explicit GzipStream(const fs::path& path) : CompressedStream(path) {
    constexpr int kGzipOnly = 16;
    if (inflateInit2(&z_, MAX_WBITS + kGzipOnly) != Z_OK) throw std::bad_alloc();
  }
  ~GzipStream() override { inflateEnd(&z_); }

  std::size_t read(std::span<char> out) override {
    const std::size_t wanted = std::min<std::size_t>(out.size(), std::size_t{1} << 30);
    z_.next_out = reinterpret_cast<Bytef*>(out.data());
    z_.avail_out = static_cast<uInt>(wanted);
    while (z_.avail_out == wanted && wanted > 0) {
      if (z_.avail_in == 0 && !take_input()) {
        if (!between_members_) fail_truncated();
        return 0;
      }
      if (between_members_) begin_member();
      const int status = inflate(&z_, Z_NO_FLUSH);
      if (status == Z_STREAM_END)
        between_members_ = true;
      else if (status != Z_OK && status != Z_BUF_ERROR)
        fail_damaged(z_.msg ? z_.msg : "zlib cannot read it");
    }
    return wanted - z_.avail_out;
  }

 protected:
  std::size_t input_left() const override { return z_.avail_in; }

 private:
  bool take_input() {
    const std::span<char> piece = refill();
    z_.next_in = reinterpret_cast<Bytef*>(piece.data());
    z_.avail_in = static_cast<uInt>(piece.size());
    return !piece.empty();
  }
  void begin_member() {
    inflateReset(&z_);
    between_members_ = false;
  }

  z_stream z_{};
  bool between_members_ = true;
};

class ZstdStream : public CompressedStream {
 public:
  explicit ZstdStream(const fs::path& path) : CompressedStream(path), context_(ZSTD_createDCtx()) {
    if (!context_) throw std::bad_alloc();
  }

  std::size_t read(std::span<char> out) override {
    ZSTD_outBuffer output{out.data(), out.size(), 0};
    while (output.pos == 0 && output.size > 0) {
      // The decoder may still hold text of a frame whose input is all taken: only an empty call
      // without progress tells that more input is needed.
      if (input_.pos == input_.size && !take_input() && between_frames_) return 0;
      const bool at_end = input_.size == 0;
      const std::size_t hint = ZSTD_decompressStream(context_.get(), &output, &input_);
      if (ZSTD_isError(hint)) fail_damaged(ZSTD_getErrorName(hint));
      between_frames_ = hint == 0;
      if (at_end && output.pos == 0 && !between_frames_) fail_truncated();
    }
    return output.pos;
  }

 protected:
  std::size_t input_left() const override { return input_.size - input_.pos; }

 private:
  bool take_input() {
    const std::span<char> piece = refill();
    input_ = {piece.data(), piece.size(), 0};
    return !piece.empty();
  }
  struct Free {
    void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
  };

  std::unique_ptr<ZSTD_DCtx, Free> context_;
  ZSTD_inBuffer input_{nullptr, 0, 0};
  bool between_frames_ = true;
};

}  // namespace

Compression compression_of(const fs::path& path) {
  if (path.extension() == ".gz") return Compression::Gzip;
  if (path.extension() == ".zst") return Compression::Zstd;
  return Compression::None;
}

void ByteStream::skip(std::uint64_t count) {
  std::array<char, 65536> thrown_away;
  while (count > 0) {
    const auto n = std::min<std::uint64_t>(count, thrown_away.size());
    const std::size_t got = read(std::span(thrown_away).first(static_cast<std::size_t>(n)));
    if (got == 0) return;
    count -= got;
  }
}

std::unique_ptr<ByteStream> open_byte_stream(const fs::path& path, Compression compression) {
  switch (compression) {
    case Compression::Gzip:
      return std::make_unique<GzipStream>(path);
    case Compression::Zstd:
      return std::make_unique<ZstdStream>(path);
    case Compression::None:
      break;
  }
  return std::make_unique<PlainStream>(path);
}

}  // namespace minke
