#include "train/event_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdlib>

#include "base/crc32c.h"
#include "base/error.h"

namespace minke {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "events.out.tfevents.";

template <class Integer>
void put_little_endian(std::string& out, Integer value) {
  for (std::size_t i = 0; i < sizeof value; ++i)
    out += static_cast<char>(static_cast<std::uint8_t>(value >> (8 * i)));
}

// Protocol buffers: a field is its number and wire type, then the value.
enum class Wire : std::uint8_t { Varint = 0, Fixed64 = 1, Bytes = 2, Fixed32 = 5 };

void put_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}
void put_key(std::string& out, std::uint64_t field, Wire wire) {
  put_varint(out, field << 3 | static_cast<std::uint64_t>(wire));
}
void put_integer(std::string& out, std::uint64_t field, std::int64_t value) {
  put_key(out, field, Wire::Varint);
  put_varint(out, static_cast<std::uint64_t>(value));
}
void put_double(std::string& out, std::uint64_t field, double value) {
  put_key(out, field, Wire::Fixed64);
  put_little_endian(out, std::bit_cast<std::uint64_t>(value));
}
void put_float(std::string& out, std::uint64_t field, float value) {
  put_key(out, field, Wire::Fixed32);
  put_little_endian(out, std::bit_cast<std::uint32_t>(value));
}
void put_bytes(std::string& out, std::uint64_t field, std::string_view value) {
  put_key(out, field, Wire::Bytes);
  put_varint(out, value.size());
  out += value;
}

std::uint32_t masked_crc(std::string_view bytes) {
  return std::rotr(crc32c(bytes), 15) + 0xa282ead8u;
}

// The beginning of every Event.
std::string event_at(double wall_time_s, std::int64_t step) {
  std::string event;
  put_double(event, 1, wall_time_s);
  put_integer(event, 2, step);
  return event;
}

double seconds_since_epoch() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

const fs::path& made(const fs::path& directory) {
  std::error_code error;
  fs::create_directories(directory, error);
  if (error)
    throw IoError(fmt::format("cannot create {}: {}", directory.string(), error.message()));
  return directory;
}

// TensorBoard reads the files of a directory in the order of their names. The number keeps two
// sessions of one second apart, and a clock that was put back does not bring the new file forward.
fs::path next_name(const fs::path& directory) {
  auto seconds = static_cast<std::int64_t>(seconds_since_epoch());
  int number = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    ++number;
    seconds =
        std::max<std::int64_t>(seconds, std::strtoll(name.c_str() + kPrefix.size(), nullptr, 10));
  }
  return directory / fmt::format("{}{:010}.{:05}", kPrefix, seconds, number);
}

}  // namespace

void EventSummary::scalar(std::string_view tag, double value) {
  std::string v;
  put_bytes(v, 1, tag);
  put_float(v, 2, static_cast<float>(value));
  put_bytes(bytes_, 1, v);
}

void EventSummary::text(std::string_view tag, std::string_view markdown) {
  constexpr std::int64_t kString = 7;  // DT_STRING
  std::string plugin, metadata, extent, shape, tensor, v;
  put_bytes(plugin, 1, "text");
  put_bytes(metadata, 1, plugin);
  put_integer(extent, 1, 1);
  put_bytes(shape, 2, extent);
  put_integer(tensor, 1, kString);
  put_bytes(tensor, 2, shape);
  put_bytes(tensor, 8, markdown);
  put_bytes(v, 1, tag);
  put_bytes(v, 8, tensor);
  put_bytes(v, 9, metadata);
  put_bytes(bytes_, 1, v);
}

void EventSummary::counts(std::string_view tag, std::span<const double> counts) {
  std::string histogram, limits, buckets, v;
  double n = 0, sum = 0, sum_squares = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const double position = static_cast<double>(i);
    n += counts[i];
    sum += position * counts[i];
    sum_squares += position * position * counts[i];
    put_little_endian(limits, std::bit_cast<std::uint64_t>(position + 1));
    put_little_endian(buckets, std::bit_cast<std::uint64_t>(counts[i]));
  }
  put_double(histogram, 1, 0);
  put_double(histogram, 2, static_cast<double>(counts.size()));
  put_double(histogram, 3, n);
  put_double(histogram, 4, sum);
  put_double(histogram, 5, sum_squares);
  put_bytes(histogram, 6, limits);
  put_bytes(histogram, 7, buckets);
  put_bytes(v, 1, tag);
  put_bytes(v, 5, histogram);
  put_bytes(bytes_, 1, v);
}

EventFile::EventFile(const fs::path& directory, std::int64_t first_step)
    : file_(next_name(made(directory)), AppendFile::Open::New) {
  const double now = seconds_since_epoch();
  std::string version = event_at(now, 0);
  put_bytes(version, 3, "brain.Event:2");
  write_event(version);
  std::string start = event_at(now, first_step), session;
  put_integer(session, 1, 1);  // SessionLog.START
  put_bytes(start, 7, session);
  write_event(start);
}

void EventFile::add(std::int64_t step, const EventSummary& summary) {
  std::string event = event_at(seconds_since_epoch(), step);
  put_bytes(event, 5, summary.bytes());
  write_event(event);
}

void EventFile::write_event(std::string_view event) {
  std::string record;
  put_little_endian(record, static_cast<std::uint64_t>(event.size()));
  put_little_endian(record, masked_crc(record));
  record += event;
  put_little_endian(record, masked_crc(event));
  file_.append(record);
}

}  // namespace minke
