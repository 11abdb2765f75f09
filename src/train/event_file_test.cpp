#include "train/event_file.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/crc32c.h"
#include "base/files.h"
#include "base/test_directory.h"
#include "train/metrics.h"

namespace minke {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

// A reader of its own: fields of a protocol buffer by number, integers and doubles as their bits.
struct Field {
  std::uint64_t bits = 0;
  std::string bytes;
};
using Message = std::multimap<int, Field>;

std::uint64_t little_endian(std::string_view bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = bytes.size(); i-- > 0;)
    value = value << 8 | static_cast<std::uint8_t>(bytes[i]);
  return value;
}

std::uint64_t take_varint(std::string_view& in) {
  std::uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = static_cast<std::uint8_t>(in.at(0));
    in.remove_prefix(1);
    value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return value;
  }
}

std::string_view take(std::string_view& in, std::size_t n) {
  if (n > in.size()) throw std::out_of_range("a field ends behind its message");
  const std::string_view taken = in.substr(0, n);
  in.remove_prefix(n);
  return taken;
}

Message parse(std::string_view in) {
  Message message;
  while (!in.empty()) {
    const std::uint64_t key = take_varint(in);
    Field field;
    switch (key & 7) {
      case 0:
        field.bits = take_varint(in);
        break;
      case 1:
        field.bits = little_endian(take(in, 8));
        break;
      case 2:
        field.bytes = take(in, take_varint(in));
        break;
      case 5:
        field.bits = little_endian(take(in, 4));
        break;
      default:
        throw std::out_of_range("a wire type that nobody wrote");
    }
    message.emplace(static_cast<int>(key >> 3), field);
  }
  return message;
}

const Field& only(const Message& message, int number) {
  EXPECT_EQ(message.count(number), 1u) << "field " << number;
  return message.find(number)->second;
}
double as_double(const Field& field) {
  return std::bit_cast<double>(field.bits);
}
float as_float(const Field& field) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(field.bits));
}

std::uint32_t unmasked(std::uint64_t crc) {
  return std::rotl(static_cast<std::uint32_t>(crc) - 0xa282ead8u, 15);
}

std::vector<Message> read_events(const fs::path& path) {
  const std::string file = read_file(path);
  std::string_view in = file;
  std::vector<Message> events;
  while (!in.empty()) {
    const std::string_view length = take(in, 8);
    EXPECT_EQ(unmasked(little_endian(take(in, 4))), crc32c(length));
    const std::string_view data = take(in, little_endian(length));
    EXPECT_EQ(unmasked(little_endian(take(in, 4))), crc32c(data));
    events.push_back(parse(data));
  }
  return events;
}

std::vector<fs::path> files_in(const fs::path& directory) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(directory)) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

// tag -> Value message of a Summary.
std::map<std::string, Message> values_of(std::string_view summary) {
  std::map<std::string, Message> values;
  for (const auto& [number, field] : parse(summary)) {
    EXPECT_EQ(number, 1);
    Message value = parse(field.bytes);
    const std::string tag = only(value, 1).bytes;
    EXPECT_TRUE(values.emplace(tag, std::move(value)).second) << tag << " twice";
  }
  return values;
}

struct EventFileTest : TestDirectory {};

TEST_F(EventFileTest, ASessionBeginsWithItsVersionAndFirstStep) {
  { const EventFile file(dir / "tb", 7); }
  const std::vector<Message> events = read_events(files_in(dir / "tb").at(0));
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(only(events[0], 3).bytes, "brain.Event:2");
  EXPECT_EQ(only(events[1], 2).bits, 7u);
  EXPECT_EQ(only(parse(only(events[1], 7).bytes), 1).bits, 1u);
  EXPECT_GT(as_double(only(events[1], 1)), 1.6e9);
}

TEST_F(EventFileTest, ScalarsTextAndCounts) {
  EventSummary summary;
  EXPECT_TRUE(summary.empty());
  summary.scalar("loss.main", 2.5);
  summary.text("recipe", std::string(300, 'x'));
  const std::vector<double> loads{4, 0, 8};
  summary.counts("loads.3", loads);
  {
    EventFile file(dir, 1);
    file.add(300, summary);
  }
  const std::vector<Message> events = read_events(files_in(dir).at(0));
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(only(events[2], 2).bits, 300u);
  const auto values = values_of(only(events[2], 5).bytes);
  ASSERT_EQ(values.size(), 3u);
  EXPECT_EQ(as_float(only(values.at("loss.main"), 2)), 2.5f);

  const Message tensor = parse(only(values.at("recipe"), 8).bytes);
  EXPECT_EQ(only(tensor, 1).bits, 7u);
  EXPECT_EQ(only(tensor, 8).bytes, std::string(300, 'x'));
  const Message plugin = parse(only(parse(only(values.at("recipe"), 9).bytes), 1).bytes);
  EXPECT_EQ(only(plugin, 1).bytes, "text");

  const Message histogram = parse(only(values.at("loads.3"), 5).bytes);
  EXPECT_EQ(as_double(only(histogram, 2)), 3);
  EXPECT_EQ(as_double(only(histogram, 3)), 12);
  EXPECT_EQ(as_double(only(histogram, 4)), 16);
  EXPECT_EQ(as_double(only(histogram, 5)), 32);
  const std::string limits = only(histogram, 6).bytes, buckets = only(histogram, 7).bytes;
  ASSERT_EQ(limits.size(), 24u);
  double limit = 0, bucket = 0;
  std::memcpy(&limit, limits.data() + 16, 8);
  std::memcpy(&bucket, buckets.data() + 16, 8);
  EXPECT_EQ(limit, 3);
  EXPECT_EQ(bucket, 8);
}

TEST_F(EventFileTest, LaterSessionsSortBehindEarlierOnesAlsoWhenTheClockWentBack) {
  put(dir / "events.out.tfevents.9000000000.00000", "of a clock that was ahead");
  put(dir / "notes.txt", "something else");
  { const EventFile first(dir, 1); }
  { const EventFile second(dir, 5); }
  const std::vector<fs::path> files = files_in(dir);
  ASSERT_EQ(files.size(), 4u);
  EXPECT_EQ(only(read_events(files[1])[1], 2).bits, 1u);
  EXPECT_EQ(only(read_events(files[2])[1], 2).bits, 5u);
}

TEST_F(EventFileTest, ADirectoryThatCannotBeMadeIsNamed) {
  put(dir / "file", "");
  EXPECT_HOLDS(error_of([&] { EventFile(dir / "file" / "tb", 1); }), "file/tb");
}

TEST(EventSummaryTest, NumbersOfAStepByTheirDottedNames) {
  const Json line = {{"step", 4},
                     {"loss", {{"main", 2.0}, {"mtp_k", {3.0, 4.0}}}},
                     {"loads", {{"2", {1, 5}}}},
                     {"held_out", nullptr},
                     {"note", "text"}};
  const auto values = values_of(event_summary(line).bytes());
  ASSERT_EQ(values.size(), 4u);
  EXPECT_EQ(as_float(only(values.at("loss.mtp_k.1"), 2)), 4);
  EXPECT_EQ(values.at("loads.2").count(5), 1u);
}

TEST(EventSummaryTest, StartsAndEventsAreText) {
  const Json start = {{"step", 0}, {"start", true}, {"threads", 2}, {"recipe", {{"seed", 1}}}};
  const auto of_start = values_of(event_summary(start).bytes());
  ASSERT_EQ(of_start.size(), 1u);
  EXPECT_HOLDS(only(parse(only(of_start.at("recipe"), 8).bytes), 8).bytes, "\"seed\": 1");
  const Json event = {{"step", 3}, {"event", "spike"}, {"message", "loss 9 after 3"}};
  const auto of_event = values_of(event_summary(event).bytes());
  EXPECT_EQ(only(parse(only(of_event.at("event.spike"), 8).bytes), 8).bytes, "loss 9 after 3");
  EXPECT_TRUE(event_summary({{"step", 1}, {"start", true}}).empty());
}

TEST_F(EventFileTest, AResumedLogStartsASessionBehindTheLastStepThatIsKept) {
  {
    MetricsLog log(dir / "metrics.jsonl", 0, dir / "tb");
    for (int step = 1; step <= 5; ++step) log.append({{"step", step}, {"lr", 0.5}});
  }
  {
    MetricsLog log(dir / "metrics.jsonl", 3, dir / "tb");
    log.append({{"step", 4}, {"lr", 0.25}});
  }
  EXPECT_EQ(read_file(dir / "metrics.jsonl"),
            "{\"step\":1,\"lr\":0.5}\n{\"step\":2,\"lr\":0.5}\n{\"step\":3,\"lr\":0.5}\n"
            "{\"step\":4,\"lr\":0.25}\n");
  const std::vector<fs::path> files = files_in(dir / "tb");
  ASSERT_EQ(files.size(), 2u);
  EXPECT_EQ(read_events(files[0]).size(), 7u);
  const std::vector<Message> resumed = read_events(files[1]);
  ASSERT_EQ(resumed.size(), 3u);
  EXPECT_EQ(only(resumed[1], 2).bits, 4u);  // TensorBoard forgets steps 4 and 5 of the first file
  EXPECT_EQ(as_float(only(values_of(only(resumed[2], 5).bytes).at("lr"), 2)), 0.25f);
}

TEST_F(EventFileTest, WithoutADirectoryThereAreNoEventFiles) {
  MetricsLog log(dir / "metrics.jsonl", 0);
  log.append({{"step", 1}});
  EXPECT_EQ(files_in(dir).size(), 1u);
}

}  // namespace
}  // namespace minke
