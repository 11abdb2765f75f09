// A file of events as TensorBoard reads it: records in TFRecord's framing, each one an Event
// message.
//
//   record   length (8 bytes, little-endian), masked CRC-32C of it, data, masked CRC-32C of the
//   data;
//            masked(c) = rotate_right(c, 15) + 0xa282ead8
//   Event    wall_time = 1, step = 2, file_version = 3 | summary = 5 | session_log = 7
//   Value    tag = 1, simple_value = 2 | histo = 5 | tensor = 8, metadata = 9
// Field numbers are those of tensorboard/compat/proto/{event,summary,tensor}.proto.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "base/append_file.h"

namespace minke {

// The values of one step, encoded as they are added.
class EventSummary {
 public:
  void scalar(std::string_view tag, double value);
  // Shown as Markdown.
  void text(std::string_view tag, std::string_view markdown);
  // counts[i] values in the bucket [i, i + 1): how often each expert was chosen, by expert.
  void counts(std::string_view tag, std::span<const double> counts);

  bool empty() const { return bytes_.empty(); }
  const std::string& bytes() const { return bytes_; }  // a Summary message

 private:
  std::string bytes_;
};

class EventFile {
 public:
  // A new file events.out.tfevents.SECONDS.NUMBER in `directory`, which is made; it sorts behind
  // those of earlier sessions. Its session starts at `first_step`: TensorBoard forgets what earlier
  // files say of that step and later ones, so that a resumed run shows each step once. IoError
  // naming the file when it cannot be written.
  EventFile(const std::filesystem::path& directory, std::int64_t first_step);

  // Written at once, with the time of day. IoError naming the file.
  void add(std::int64_t step, const EventSummary& summary);

 private:
  void write_event(std::string_view event);

  AppendFile file_;
};

}  // namespace minke
